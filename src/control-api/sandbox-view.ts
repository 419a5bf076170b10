import { z } from "zod";

const mount = z.discriminatedUnion("show", [
  z.object({ show: z.literal("read"), source: z.string(), at: z.string() }),
  z.object({ show: z.literal("write"), source: z.string(), at: z.string() }),
  z.object({ show: z.literal("link"), at: z.string(), to: z.string() }),
  z.object({ show: z.literal("empty"), at: z.string(), sealed: z.boolean() }),
]);

/** What `agentid run --sandbox` builds before the launch is granted, at the door inside. */
export const sandboxGrant = z.object({
  /** `SandboxView` of the sandbox layer. */
  view: z.object({ mounts: z.array(mount), workingDirectory: z.string() }),
  /** Where the services' addresses lead inside. */
  ports: z.array(z.number().int()),
  /** `namespaces`: enter through the door. `profile`: the process is followed already, and executes under a profile of macOS. */
  wall: z.enum(["namespaces", "profile"]),
});

/** The one question at the door: which descriptors of the asking process listen on which port. */
export const doorRequest = z.object({
  listening: z.array(z.object({ port: z.number().int(), descriptors: z.array(z.number().int().nonnegative()).max(2) })),
});

/** What to execute, or why not. */
export const doorAnswer = z.union([
  z.object({ executable: z.string(), argv: z.array(z.string()).min(1) }),
  z.object({ refused: z.string(), hint: z.string().optional() }),
]);

export type SandboxGrant = z.infer<typeof sandboxGrant>;
export type DoorRequest = z.infer<typeof doorRequest>;
export type DoorAnswer = z.infer<typeof doorAnswer>;

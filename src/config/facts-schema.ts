import { z } from "zod";
import { text } from "./schema-text.js";
import { checkExecutablePath } from "./values.js";

/** The part of an identity's entry that is about what the kernel says of a process. */

const id = (description: string, examples: readonly number[]) =>
  z
    .int()
    .min(0)
    .max(0xffff_fffe)
    .meta({ description, examples: [...examples] });

const exe = z
  .strictObject({
    path: text(checkExecutablePath, {
      description:
        "The executable as the kernel names it, symbolic links resolved (`agentid attest PID` shows it); a relative path starts at the project.",
      examples: ["/usr/bin/node"],
    }).optional(),
    sha256: z
      .string()
      .refine((value) => value === "pinned" || /^[0-9a-f]{64}$/.test(value), {
        message: 'write 64 lower-case hex digits, or "pinned" for the digest that agentid.lock keeps',
      })
      .meta({
        description:
          "SHA-256 of the executable in lower-case hex, or `pinned`: the digest is the one in `agentid.lock`.",
        examples: ["pinned"],
        pattern: "^(pinned|[0-9a-f]{64})$",
      })
      .optional(),
  })
  .refine((exe) => exe.path !== undefined || exe.sha256 !== undefined, { message: "needs path or sha256, or both" });

const parentExe = z
  .strictObject({
    path: text(checkExecutablePath, {
      description: "The parent's executable as the kernel names it; a relative path starts at the project.",
      examples: ["/usr/bin/tmux"],
    }).optional(),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, { message: "write 64 lower-case hex digits" })
      .meta({ description: "SHA-256 of that executable in lower-case hex." })
      .optional(),
  })
  .refine((exe) => exe.path !== undefined || exe.sha256 !== undefined, { message: "needs path or sha256, or both" });

const signature = z
  .strictObject({
    team: text((value) => (/^[A-Z0-9]{10}$/.test(value) ? undefined : "a team has ten capital letters and digits"), {
      description: "Apple's team identifier of whoever signed the program (`agentid:signing_team`).",
      examples: ["9JA89QQLNQ"],
    }).optional(),
    identifier: text((value) => (/^[^\s]+$/.test(value) ? undefined : "not a signing identifier"), {
      description:
        "The identifier inside the signature (`agentid:signing_id`). Anybody may sign with any identifier: name the team too.",
      examples: ["org.python.python"],
    }).optional(),
  })
  .refine((value) => value.team !== undefined || value.identifier !== undefined, {
    message: "needs team or identifier, or both",
  });

const unitName = (description: string, example: string) =>
  text(
    (name) =>
      /^[A-Za-z0-9:_.\\@-]+\.(service|scope|socket|mount|swap)$/.test(name)
        ? undefined
        : "write a unit's full name, as cron.service",
    { description, examples: [example] },
  );

/** All that is given must hold. */
export const facts = {
  user: text((name) => (/^[^\s:]+$/.test(name) ? undefined : "not the name of a user"), {
    description: "Name of the user whose process it must be (`unix:user`).",
    examples: ["dev"],
  }).optional(),
  uid: id("Number of that user (`unix:uid`).", [1000]).optional(),
  group: text((name) => (/^[^\s:]+$/.test(name) ? undefined : "not the name of a group"), {
    description: "Name of the process's primary group (`unix:group`).",
    examples: ["staff"],
  }).optional(),
  gid: id("Number of that group (`unix:gid`).", [1000]).optional(),
  supplementaryGroup: text((name) => (/^[^\s:]+$/.test(name) ? undefined : "not the name of a group"), {
    description: "Name of a supplementary group that the process must have (`unix:supplementary_group`).",
    examples: ["docker"],
  }).optional(),
  supplementaryGid: id("Number of that group (`unix:supplementary_gid`).", [999]).optional(),
  exe: z
    .union([text(checkExecutablePath), exe])
    .meta({
      description:
        "The executable that the process must run (`unix:path`, `unix:sha256`): its path, or path and digest.",
      examples: [{ path: "/usr/bin/node", sha256: "pinned" }],
    })
    .optional(),
  systemdUnit: unitName(
    "The system manager's unit that the process must belong to (`systemd:id`); only root can put a process there.",
    "cron.service",
  ).optional(),
  systemdUserUnit: unitName(
    "The unit of the user's own manager (`agentid:systemd_user_id`). Any process of that user can start one by any name.",
    "planner.service",
  ).optional(),
  cgroup: text(
    (path) => (/^\/[^\s]*[^\s/]$/.test(path) ? undefined : "write the whole path, as /system.slice/x.service"),
    {
      description:
        "The control group that the process must be in (`agentid:cgroup`), as `agentid attest PID` shows it.",
      examples: ["/system.slice/cron.service"],
    },
  ).optional(),
  containerId: text((value) => (/^[0-9a-f]{64}$/.test(value) ? undefined : "write all 64 lower-case hex digits"), {
    description:
      "The container that the process must be in, by the name of its control group (`agentid:container_id`).",
  }).optional(),
  podUid: text(
    (value) => (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value) ? undefined : "not the UID of a pod"),
    { description: "The Kubernetes pod that the process must be in (`k8s:pod-uid`)." },
  ).optional(),
  parentExe: z
    .union([text(checkExecutablePath), parentExe])
    .meta({
      description:
        "The executable of the process's parent (`agentid:parent_path`, `agentid:parent_sha256`): its path, or path and digest. The identity ends when the parent does.",
      examples: ["/usr/bin/tmux"],
    })
    .optional(),
  signature: signature
    .meta({
      description: "macOS: the code signature that the kernel enforces on the running program.",
      examples: [{ team: "9JA89QQLNQ" }],
    })
    .optional(),
};

import { z } from "zod";
import { text } from "./schema-text.js";
import { checkLoopbackHostPort } from "./values.js";

export const authzen = z
  .strictObject({
    listen: text(checkLoopbackHostPort, {
      description:
        "Loopback address where enforcement points ask over mutual TLS. Without it there is the Unix socket only.",
      examples: ["127.0.0.1:8543"],
    }).optional(),
    clients: z
      .array(z.string())
      .meta({
        description:
          "Identities that may ask: enforcement points beside the relay. Nobody else may, but the owner's own shell on the Unix socket.",
        examples: [["agents/gateway"]],
      })
      .optional(),
  })
  .meta({ description: "The decision point for other enforcement points, as AuthZEN Authorization API 1.0." });

import { z } from "zod";
import { durationSeconds } from "./duration.js";
import { text } from "./schema-text.js";

/** What a tcp service gets where the file says nothing. */
export const STANDARD_TCP_CONNECTIONS = { max: 1_024, idleSeconds: 3_600 } as const;

/** `services.NAME.connections`. */
export const tcpConnections = z
  .strictObject({
    max: z
      .int()
      .min(1)
      .max(65_536)
      .meta({
        description: "How many connections may be open at once; a further one is refused, on record.",
        default: STANDARD_TCP_CONNECTIONS.max,
      })
      .optional(),
    idle: text(
      (written) => (durationSeconds(written) === undefined ? "not a duration; write 90s, 10m or 1h" : undefined),
      {
        description: "A connection on which nothing has come from either side for so long is closed.",
        default: "1h",
        examples: ["10m"],
      },
    ).optional(),
  })
  .meta({ description: "Bounds of the connections of a tcp service." });

import { z } from "zod";
import { DURATION_PATTERN, durationSeconds } from "./duration.js";
import { text } from "./schema-text.js";

/** The part of `agentid.yaml` that is about how long credentials are valid. */

/** A duration between two others, with its default. */
export const duration = (description: string, standard: string, minSeconds: number, maxSeconds: number) =>
  text(
    (value) => {
      const seconds = durationSeconds(value);
      if (seconds === undefined) return "not a duration; write it as 300s, 10m, 24h or 7d";
      if (seconds < minSeconds) return `must be at least ${minSeconds}s`;
      // 30 days and less keep every timer below the 24.8 days that Node's timers can hold.
      return seconds > maxSeconds ? `must be at most ${maxSeconds / 3600}h` : undefined;
    },
    { description, default: standard, examples: [standard], pattern: DURATION_PATTERN.source },
  );

export const lifetimes = z.strictObject({
  x509: duration("X.509-SVIDs; replaced at about half of it. At most half of `ca`.", "10m", 10, 86_400).optional(),
  jwt: duration("JWT-SVIDs. At most half of `ca`.", "5m", 10, 86_400).optional(),
  ca: duration(
    "The trust domain's own keys; the next ones are prepared at half of it.",
    "24h",
    20,
    2_592_000,
  ).optional(),
});

import { z } from "zod";
import { text } from "./schema-text.js";
import { checkHint } from "./values.js";

export const labels = z
  .record(
    z.string().regex(/^[A-Za-z][A-Za-z0-9._-]{0,62}$/, "a label's name is letters, digits, dot, dash or underscore"),
    text(checkHint),
  )
  .meta({
    description: "What rules may ask by `labels`: names and values of your own. Labels prove nothing, they group.",
    examples: [{ team: "finance" }],
  });

import { z } from "zod";
import { checkArgument, type ValueCheck } from "./values.js";

/** What `z.toJSONSchema` copies beside what it derives; `pattern` and the like are only what editors check while typing. */
interface Description {
  readonly description: string;
  readonly examples?: readonly unknown[];
  readonly default?: unknown;
  readonly pattern?: string;
}

/** Text that `check` accepts; what it says is the problem's message. */
export function text(check: ValueCheck, about?: Description) {
  const schema = z.string().superRefine((value, context) => {
    const wrong = check(value);
    if (wrong !== undefined) context.addIssue({ code: "custom", message: wrong });
  });
  return about === undefined ? schema : schema.meta({ ...about });
}

/** A command and its arguments. */
export const argv = z
  .array(text(checkArgument))
  .min(1)
  .refine((argv) => argv[0] !== "", { message: "the command's name is empty", path: [0] });

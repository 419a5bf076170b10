import type { ASTNode } from "@marcbachmann/cel-js";
import { celEnvironment, inTheirNames, KNOWN_MEMBERS } from "./condition-environment.js";
import { childrenOf } from "./condition-syntax.js";
import { nearestHint } from "./policy-names.js";

/** What a condition that is not valid was probably meant to say. */
export interface Misnamed {
  readonly message: string;
  readonly position: number;
  readonly hint: string | undefined;
}

/**
 * The first name in a condition that nothing has, if that is why it is not valid. A function comes first: where a macro is misspelt, its variable is
 * unknown too. `message` is what the library says.
 */
export function misnamed(root: ASTNode, message: string, position: number): Misnamed | undefined {
  const call = firstUnknownCall(root);
  if (call !== undefined) {
    const hint = nearestHint(call.name, [...functionNames()]);
    return { message: `no such function: ${call.name}`, position: call.start, hint };
  }
  const [, variable] = /^Unknown variable: (\S+)$/.exec(message) ?? [];
  if (variable === undefined) return undefined;
  return {
    message: `no such variable: ${variable}`,
    position,
    hint: nearestHint(variable, Object.keys(KNOWN_MEMBERS)),
  };
}

function firstUnknownCall(node: ASTNode): { readonly name: string; readonly start: number } | undefined {
  if (node.op === "call" || node.op === "rcall") {
    // Ours stand under names of their own.
    const name = inTheirNames(node.args[0]);
    if (!functionNames().has(name)) return { name, start: node.start };
  }
  for (const child of childrenOf(node)) {
    const found = firstUnknownCall(child);
    if (found !== undefined) return found;
  }
  return undefined;
}

let names: ReadonlySet<string> | undefined;

function functionNames(): ReadonlySet<string> {
  names ??= new Set(
    celEnvironment()
      .getDefinitions()
      .functions.map(({ name }) => inTheirNames(name)),
  );
  return names;
}

import { createHash } from "node:crypto";
import type { ScopeItem } from "../../config/config.js";

interface Digested {
  readonly name: string;
  readonly digest: string;
}

/** Hex SHA-256 over all that decides; that of the rule files where our rules judge everything alone. */
export function policyDigest(
  rules: string,
  engines: readonly Digested[],
  rulesScope: readonly ScopeItem[] | undefined,
): string {
  if (engines.length === 0 && rulesScope === undefined) return rules;
  const digest = createHash("sha256").update(`${rules}${JSON.stringify(rulesScope ?? null)}`);
  for (const { name, digest: own } of engines) digest.update(`${name.length}:${name}${own}`);
  return digest.digest("hex");
}

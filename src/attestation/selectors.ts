import type { ProcessFacts, Selector } from "./process-facts.js";

/** The selectors that follow from a process's facts, named as SPIRE's unix workload attestor names them; an absent fact gives none. */
export function selectorsOf(facts: ProcessFacts): readonly Selector[] {
  const selectors: Selector[] = [`unix:uid:${facts.uid}`];
  if (facts.user !== undefined) selectors.push(`unix:user:${facts.user}`);
  selectors.push(`unix:gid:${facts.gid}`);
  if (facts.group !== undefined) selectors.push(`unix:group:${facts.group}`);
  for (const gid of facts.supplementaryGids) selectors.push(`unix:supplementary_gid:${gid}`);
  for (const group of facts.supplementaryGroups) selectors.push(`unix:supplementary_group:${group}`);
  if (facts.exePath !== undefined) selectors.push(`unix:path:${facts.exePath}`);
  if (facts.exeSha256 !== undefined) selectors.push(`unix:sha256:${facts.exeSha256}`);
  return selectors;
}

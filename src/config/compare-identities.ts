import { type Change, differing, listText } from "./change.js";
import type { IdentityConfig, Labels, RequiredFacts, SandboxConfig } from "./config.js";
import { describeIdentity, describeLaunch, formatCommand } from "./describe-identity.js";

/** What the identities let processes be, and in which order. */
export function identityChanges(old: readonly IdentityConfig[], next: readonly IdentityConfig[]): readonly Change[] {
  const before = new Map(old.map((identity) => [identity.name, identity]));
  const after = new Map(next.map((identity) => [identity.name, identity]));
  return [
    ...old
      .filter((identity) => !after.has(identity.name))
      .map((identity) => ({ line: `- identities.${identity.name}: ${describeIdentity(identity)}`, widens: false })),
    ...next.flatMap((identity): readonly Change[] => {
      const was = before.get(identity.name);
      return was === undefined
        ? [{ line: `+ identities.${identity.name}: ${describeIdentity(identity)}`, widens: true }]
        : changesOfIdentity(was, identity);
    }),
    ...orderChanges(old, next),
  ];
}

/** The first identity that a process has is the one it calls as (D9): another order is another default. */
function orderChanges(old: readonly IdentityConfig[], next: readonly IdentityConfig[]): readonly Change[] {
  const oldNames = new Set(old.map((identity) => identity.name));
  const nextNames = new Set(next.map((identity) => identity.name));
  const keptBefore = [...oldNames].filter((name) => nextNames.has(name));
  const keptAfter = [...nextNames].filter((name) => oldNames.has(name));
  return differing("identities in the order", keptBefore.join(", "), keptAfter.join(", "), true);
}

function changesOfIdentity(old: IdentityConfig, next: IdentityConfig): readonly Change[] {
  const at = `identities.${next.name}`;
  const addedNames = next.dnsNames.some((name) => !old.dnsNames.includes(name));
  return [
    ...groundChanges(at, old, next),
    ...differing(`${at}.service`, old.service, next.service, next.service !== undefined),
    ...differing(`${at}.dnsNames`, listText(old.dnsNames), listText(next.dnsNames), addedNames),
    ...differing(`${at}.hint`, old.hint, next.hint, false),
    ...labelChanges(at, old.labels, next.labels),
    ...differing(`${at}.shadow`, shadowOf(old), shadowOf(next), next.shadow === true),
    ...federatesWithChanges(`${at}.federatesWith`, old.federatesWith, next.federatesWith),
  ];
}

/** Rules ask for labels, allows and denies alike: another label may be what an allow asks for, or what a deny no longer finds. */
export function labelChanges(at: string, old: Labels = {}, next: Labels = {}): readonly Change[] {
  const names = [...new Set([...Object.keys(old), ...Object.keys(next)])].sort();
  const of = (labels: Labels, name: string) => (Object.hasOwn(labels, name) ? labels[name] : undefined);
  return names.flatMap((name) => differing(`${at}.labels.${name}`, of(old, name), of(next, name), true));
}

function shadowOf({ shadow }: IdentityConfig): string | undefined {
  return shadow === true ? "what no rule allows is let through" : undefined;
}

/** Without it an identity deals with all trust domains. */
function federatesWithChanges(
  at: string,
  before: readonly string[] | undefined,
  after: readonly string[] | undefined,
): readonly Change[] {
  const shown = (names: readonly string[] | undefined) => (names === undefined ? "all" : listText(names) || "none");
  const widens = before !== undefined && (after === undefined || after.some((name) => !before.includes(name)));
  return differing(at, shown(before), shown(after), widens);
}

/** What a process must be. More conditions are narrower only where some process could have the identity before. */
function groundChanges(at: string, old: IdentityConfig, next: IdentityConfig): readonly Change[] {
  const wasNobodys = !grantsToProcesses(old);
  const isNobodys = !grantsToProcesses(next);
  const facts = [...new Set([...Object.keys(old.facts), ...Object.keys(next.facts)])] as (keyof RequiredFacts)[];
  return [
    ...facts.flatMap((fact) => {
      const after = next.facts[fact];
      const widens = !isNobodys && (wasNobodys || after === undefined || old.facts[fact] !== undefined);
      return differing(`${at}.${fact}`, old.facts[fact], after, widens);
    }),
    ...launchChanges(`${at}.launch`, old, next, isNobodys),
  ];
}

function grantsToProcesses(identity: IdentityConfig): boolean {
  return identity.launch !== undefined || Object.keys(identity.facts).length > 0;
}

function launchChanges(at: string, old: IdentityConfig, next: IdentityConfig, isNobodys: boolean): readonly Change[] {
  const [before, after] = [old.launch, next.launch];
  if (after === undefined || before === undefined) {
    return differing(at, before && describeLaunch(before), after && describeLaunch(after), !isNobodys);
  }
  const keptMore = after.keepEnv.some((name) => !before.keepEnv.includes(name));
  const launchesMore = after.subagents.some((name) => !before.subagents.includes(name));
  return [
    ...differing(at, formatCommand(before.argv), formatCommand(after.argv), true),
    ...differing(`${at}.cwd`, before.workingDirectory, after.workingDirectory, true),
    ...differing(`${at}.keepEnv`, listText(before.keepEnv), listText(after.keepEnv), keptMore),
    ...differing(`${at}.children`, String(before.children), String(after.children), after.children),
    ...differing(`${at}.instances`, String(before.instances), String(after.instances), after.instances),
    ...differing(`${at}.subagents`, listText(before.subagents), listText(after.subagents), launchesMore),
    ...sandboxChanges(`${at}.sandbox`, before.sandbox, after.sandbox),
  ];
}

/** Without a sandbox everything is open: whatever a new one opens is less, and the end of one is more. */
function sandboxChanges(
  at: string,
  before: SandboxConfig | undefined,
  after: SandboxConfig | undefined,
): readonly Change[] {
  if (before === undefined || after === undefined) {
    const shown = (sandbox: SandboxConfig | undefined) =>
      sandbox && `read ${listText(sandbox.read)}, write ${listText(sandbox.write)}`;
    return differing(at, shown(before), shown(after), after === undefined);
  }
  return (["read", "write"] as const).flatMap((way) => {
    const opensMore = after[way].some((path) => !before[way].includes(path));
    return differing(`${at}.${way}`, listText(before[way]), listText(after[way]), opensMore);
  });
}

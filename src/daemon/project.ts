import { join } from "node:path";
import { sha256OfFile } from "../attestation/file-digest.js";
import { pinLaunch } from "../attestation/pinning.js";
import { CodedError } from "../coded-error.js";
import { compareConfigs } from "../config/compare.js";
import { compareLocks } from "../config/compare-locks.js";
import type { Config, IdentityConfig, Lock, LockedIdentity } from "../config/config.js";
import { builtInConfig, CONFIG_FILE_NAME, ENTITIES_FILE_NAME, LOCK_FILE_NAME, loadConfig } from "../config/load.js";
import { EMPTY_LOCK, readLock } from "../config/lock-file.js";
import { type KnownRelationship, readFirstBundles } from "../federation/first-bundle.js";
import { compareEngines, type LoadedEngines, loadEngines, NO_ENGINES } from "../policy/engines/load-engines.js";
import { policyDigest } from "../policy/engines/policy-digest.js";
import { diffPolicySets } from "../policy/policy-diff.js";
import { policyNamesOf } from "../policy/policy-names.js";
import { emptyPolicySet, loadPolicySet, type PolicySet } from "../policy/policy-set.js";
import { problemLine } from "../policy/yaml-file.js";

/** All that a trust domain is told by files: `agentid.yaml`, `agentid.lock` and the policies, loaded together and valid together. */
export interface Project {
  readonly config: Config;
  readonly lock: Lock;
  readonly policies: PolicySet;
  /** What judges beside the rules. */
  readonly engines: LoadedEngines;
  /** Hex SHA-256 over the rules and all that the engines decide by; decisions name it. */
  readonly policyDigest: string;
  /** Of `config.federation`, with the bundles in the files that it names. */
  readonly relationships: readonly KnownRelationship[];
  /** What is allowed but worth a look. */
  readonly warnings: readonly string[];
  /** Names of identities whose pins were made at this load because the lock had none. */
  readonly newlyPinned: readonly string[];
}

/**
 * Loads the project in `directory`. Throws CodedError `config-invalid` or `policy-invalid` with every problem of the file,
 * `pin-failed` when what an identity asks for cannot be found to be pinned.
 */
export async function loadProject(directory: string, environment: NodeJS.ProcessEnv): Promise<Project> {
  const config = await loadConfig(join(directory, CONFIG_FILE_NAME));
  const lock = await readLock(join(directory, LOCK_FILE_NAME));
  const entities = join(directory, ENTITIES_FILE_NAME);
  const { set, problems } = await loadPolicySet(config.policiesDirectory, policyNamesOf(config, lock), entities);
  const loadedEngines =
    set === undefined
      ? undefined
      : await loadEngines(config.policy, set, {
          projectDirectory: directory,
          cacheDirectory: join(directory, ".agentid", "rego"),
          environment,
        });
  const all = [...problems, ...(loadedEngines?.problems ?? [])];
  const engines = loadedEngines?.loaded;
  const lines = all.map((problem) => `${problem.severity === "warning" ? "" : "error: "}${problemLine(problem)}`);
  if (set === undefined || engines === undefined) {
    const errors = all.filter(({ severity }) => severity === "error").map(problemLine);
    throw new CodedError("policy-invalid", errors.join("\n"));
  }
  const pinned = await completeLock(config, lock, environment);
  const relationships = await readFirstBundles(config.federation.relationships);
  const spared = config.identities.filter(({ shadow }) => shadow === true);
  const warnings = [
    ...lines,
    ...spared.map(({ name }) => `${name} is in shadow: what no rule allows it is let through`),
  ];
  const digest = policyDigest(set.digest, engines.engines, engines.rules.items);
  return { config, policies: set, engines, policyDigest: digest, relationships, warnings, ...pinned };
}

/** What `agentid ci` runs where there is no `agentid.yaml`: `ci.local`, nothing registered, nothing allowed. */
export function builtInProject(directory: string): Project {
  const config = builtInConfig(directory);
  const policies = emptyPolicySet(policyNamesOf(config));
  const none = { lock: EMPTY_LOCK, relationships: [], warnings: [], newlyPinned: [] };
  return { config, policies, engines: NO_ENGINES, policyDigest: policies.digest, ...none };
}

/** What changes from `old` to `next`, over all three kinds of files, and whether anything more is permitted (D13). */
export function compareProjects(old: Project, next: Project): { widened: boolean; changes: readonly string[] } {
  const parts = [
    compareConfigs(old.config, next.config),
    compareLocks(old.lock, next.lock),
    diffPolicySets(old.policies, next.policies),
    compareEngines(old.engines, next.engines),
    compareFirstBundles(old.relationships, next.relationships),
  ];
  return { widened: parts.some(({ widened }) => widened), changes: parts.flatMap(({ changes }) => changes) };
}

/** A file with another bundle in it is another authority over who belongs to that trust domain, though `agentid.yaml` says the same. */
function compareFirstBundles(
  old: readonly KnownRelationship[],
  next: readonly KnownRelationship[],
): { widened: boolean; changes: readonly string[] } {
  const changed = next.filter(({ trustDomain, key, url, spiffe }) => {
    const before = old.find((one) => one.trustDomain.equals(trustDomain));
    // Every other difference is one of the configuration.
    return before?.url === url && before.spiffe?.bundleFile === spiffe?.bundleFile && before.key !== key;
  });
  return {
    widened: changed.length > 0,
    changes: changed.map(({ trustDomain }) => `~ federation.trustDomains.${trustDomain}: the bundle in its file`),
  };
}

/** Pins what one identity asks for, as it is on disk now. Throws CodedError `pin-failed`. */
export async function pinIdentity(
  identity: IdentityConfig,
  environment: NodeJS.ProcessEnv,
): Promise<LockedIdentity | undefined> {
  if (identity.launch) return await pinLaunch({ ...identity.launch, env: environment });
  const { exePath, exeSha256 } = identity.facts;
  if (exeSha256 !== "pinned") return undefined;
  if (exePath === undefined) {
    throw new CodedError("pin-failed", `${identity.name}: to pin a digest, exe needs a path`);
  }
  try {
    return { exe: { path: exePath, sha256: await sha256OfFile(exePath) }, files: {} };
  } catch (cause) {
    throw new CodedError("pin-failed", `${identity.name}: cannot read ${exePath}`, { cause });
  }
}

/** The lock with a pin for every identity that needs one and has none: like a package lock, the first start writes it. */
async function completeLock(
  config: Config,
  lock: Lock,
  environment: NodeJS.ProcessEnv,
): Promise<{ lock: Lock; newlyPinned: readonly string[] }> {
  const identities: Record<string, LockedIdentity> = { ...lock.identities };
  const newlyPinned: string[] = [];
  for (const identity of config.identities) {
    if (identities[identity.name] !== undefined) continue;
    const pin = await pinIdentity(identity, environment);
    if (pin === undefined) continue;
    identities[identity.name] = pin;
    newlyPinned.push(identity.name);
  }
  return { lock: newlyPinned.length === 0 ? lock : { ...lock, identities }, newlyPinned };
}

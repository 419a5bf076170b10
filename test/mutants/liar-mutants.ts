import type { Mutant } from "./mutants.ts";

const EXECS = ["test/liars/hidden-execs.test.ts"];
const REPARENTING = ["test/liars/reparenting.test.ts"];
const HELD = ["test/attestation/held-facts.test.ts"];
const CALLS = ["test/e2e/calls.test.ts"];
const LAUNCHES = ["test/attestation/launches.test.ts"];

/** Checks that only a liar would notice. */
export const liarMutants: readonly Mutant[] = [
  {
    id: "held-program",
    check: "D5: a process whose memory image has ended has executed something else, whatever its addresses say",
    file: "src/platform/linux-process.ts",
    find: "if (readFromStart(this.#fd, 64) <= 0) this.close();",
    replace: "",
    tests: EXECS,
  },
  {
    id: "adopter-may-be-a-parent",
    check: "D25: a young child of a process that adopts orphans may be an agent's",
    file: "src/attestation/administrator.ts",
    find: " || isAdopter(ancestor.pid, ancestor.startTime)",
    replace: "",
    tests: REPARENTING,
  },
  {
    id: "systemd-is-an-adopter",
    check: "D25: a young child of systemd may be what an agent told it to start",
    file: "src/attestation/administrator.ts",
    find: '  "systemd",\n',
    replace: "",
    tests: ["test/attestation/administrator.test.ts", "test/liars/systemd.test.ts"],
  },
  {
    id: "adopter-not-known",
    check: "D25: where it is not known who adopts an agent's orphans, everything above it may",
    file: "src/attestation/adopters.ts",
    find: "above.slice(Math.max(nearest, 0))",
    replace: "nearest < 0 ? [] : above.slice(nearest)",
    tests: REPARENTING,
  },
  {
    id: "adopter-above-adopter",
    check: "D25: when the nearest process that adopts orphans has ended, the next one above adopts",
    file: "src/attestation/adopters.ts",
    find: "above.slice(Math.max(nearest, 0))",
    replace: "nearest < 0 ? above : above.slice(nearest, nearest + 1)",
    tests: REPARENTING,
  },
  {
    id: "adopter-in-a-pid-namespace",
    check: "D25: in a PID namespace of its own a launcher's numbers are not ours",
    file: "src/attestation/adopters.ts",
    find: "platform.isInOurPidNamespace(launcherPid) ? ",
    replace: "true ? ",
    tests: REPARENTING,
  },
  {
    id: "adopter-guessed",
    check: "D25: who adopts orphans is tried with one",
    file: "src/platform/orphan-adopter.ts",
    find: "return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;",
    replace: "return stdout === null ? pid : 1;",
    tests: REPARENTING,
  },
  {
    id: "root-of-a-user-namespace",
    check: "D4: a user is who he is outside his user namespace",
    file: "src/platform/linux-process.ts",
    find: "      uid: credentials.uid,",
    replace: '      uid: /^\\s*0\\s+[1-9]/.test(this.#read("uid_map").toString()) ? 0 : credentials.uid,',
    tests: HELD,
  },
  {
    id: "writers-kept-out",
    check: "D6: nothing is kept where the kernel lets a running executable be written",
    file: "src/platform/linux-filesystem.ts",
    find: "return major !== undefined && (lastOpen === undefined || Number(patch) > lastOpen);",
    replace: "return major !== undefined && lastOpen !== patch;",
    tests: ["test/attestation/hash-cache.test.ts"],
  },
  {
    id: "environment-that-loads-code",
    check: "D7: a variable that loads code does not reach a launched program",
    file: "src/client/launch-environment.ts",
    find: "  return { ...launched, ...grant.setEnv };",
    replace: "  return { ...env, ...launched, ...grant.setEnv } as Record<string, string>;",
    tests: ["test/launch/run.test.ts"],
  },
  {
    id: "arguments-are-evidence",
    check: "what a process says of itself in its arguments is no evidence",
    file: "src/attestation/attestor.ts",
    find: "const own = launches.launchOf(pid, startTime, execGeneration);",
    replace:
      'const said = this.#facts.commandLine[1] === "agents/billing.py" ? { name: "agents/billing", instance: undefined, launchedBy: [] } : undefined;\n    const own = launches.launchOf(pid, startTime, execGeneration) ?? said;',
    tests: CALLS,
  },
  {
    id: "tables-of-other-networks",
    check: "a connection is looked for in its own network namespace only",
    file: "src/platform/linux-tcp-owner.ts",
    find: '  return found === "none" ? undefined : found;',
    replace:
      '  const theirs = (pid: string) => { try { return findSocket(readFileSync("/proc/" + pid + "/net/tcp", "latin1"), hexEndpoint(ends.client.address, ends.client.port, 4), hexEndpoint(ends.server.address, ends.server.port, 4)); } catch { return undefined; } };\n  return found === "none" ? process.getBuiltinModule("node:fs").readdirSync("/proc").filter(Number).map(theirs).find((row) => row !== undefined) : found;',
    tests: ["test/attestation/tcp-callers.test.ts"],
  },
  {
    id: "launch-of-another-command",
    check: "D7: only the command of the entry is launched",
    file: "src/daemon/launching.ts",
    find: "if (difference !== undefined) return refuse(",
    replace: "if (difference === request.name) return refuse(",
    tests: CALLS,
  },
  {
    id: "launch-ends-for-ever",
    check: "D7: an identity that has ended does not begin again",
    file: "src/attestation/launched-process.ts",
    find: '    this.#end("exec", true);',
    replace: '    this.#state = "waiting";',
    tests: LAUNCHES,
  },
  {
    id: "launch-start-time",
    check: "D7: a launch follows the process that asked, not its number",
    file: "src/attestation/launched-process.ts",
    find: "if (status.startTime !== startTime) throw processGone(pid);",
    replace: "",
    tests: LAUNCHES,
  },
  {
    id: "subagents-named",
    check: "an agent launches only the sub-agents that its entry names",
    file: "src/daemon/agents-above.ts",
    find: "if (held.identity.launch?.subagents.includes(wanted.name) !== true) {",
    replace: "if (held.identity.launch === undefined) {",
    tests: ["test/e2e/launches.test.ts"],
  },
  {
    id: "control-inside",
    check: "the control socket does not exist inside a sandbox",
    file: "src/sandbox/plan.ts",
    find: `      { show: "read", source: wish.door, at: INSIDE.door },
    ],
    workingDirectory: wish.workingDirectory,
  };
  const exists = (path: string): boolean => files.kindOf(path) !== undefined && files.real(path) === path;
  return { view, hidden: hidden.filter(exists),`,
    replace: `      { show: "read", source: wish.door, at: INSIDE.door },
      { show: "read", source: dirname(wish.workloadApi), at: dirname(wish.workloadApi) },
    ],
    workingDirectory: wish.workingDirectory,
  };
  const exists = (path: string): boolean => files.kindOf(path) !== undefined && files.real(path) === path;
  return { view, hidden: [],`,
    tests: ["test/liars/administration.test.ts"],
    needsSandbox: true,
  },
  {
    id: "agent-itself-may-not-administer",
    check: "D25: an agent may not administer, also on a connection that it opened before it was one",
    file: "src/attestation/administrator.ts",
    find: "if (isAgent(peer.pid, peer.startTime)) return refused(",
    replace: "if (false) return refused(",
    tests: ["test/liars/administration.test.ts"],
  },
  {
    id: "chain-read-twice",
    check: "D25: a chain of parents that changes while it is read is no evidence",
    file: "src/attestation/administrator.ts",
    find: "if (!sameChain(chain, platform.ancestors(peer.pid)))",
    replace: "if (false)",
    tests: ["test/attestation/administrator.test.ts"],
  },
];

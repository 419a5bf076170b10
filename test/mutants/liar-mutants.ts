import type { Mutant } from "./mutants.ts";

const EXECS = ["test/liars/hidden-execs.test.ts"];
const REPARENTING = ["test/liars/reparenting.test.ts"];

/** Checks that only a liar would notice. */
export const liarMutants: readonly Mutant[] = [
  {
    id: "held-program",
    check: "D5: a process whose memory image has ended has executed something else, whatever its addresses say",
    file: "src/platform/linux-process.ts",
    find: "if (readSync(this.#fd, scratch, 0, 64, 0) === 0) this.close();",
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

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { bin, giveTo, makeProject, ordinaryUser } from "../e2e/agentid.js";

/*
 * The race: real processes that fork, execute, exit, change user and hand connections on, against a real `agentid dev`, for some seconds. Each writes down
 * what it is and what it was handed; here it is said what each should have been handed.
 */

/** What a process was when it was answered, as its launcher has it. */
interface Who {
  readonly pid: number;
  readonly start: number;
  readonly program: "alpha" | "beta" | "gamma" | "node";
  readonly uid: number;
  readonly groups: readonly number[];
  readonly launch: "agents/launched" | null;
}

/** One question to the Workload API. */
interface Asked {
  readonly kind: "asked";
  readonly scene: string;
  readonly asked: "x509" | "jwt";
  /**
   * Who asked, seen from the connection: the very program that opened it (`own`); another process while the one that opened it lives (`opener-lives`) or
   * no longer does (`opener-gone`); the process that opened it, which has executed a program or changed its user since (`opener-changed`); or that
   * changed while the question was under way (`racing`).
   */
  readonly relation: "own" | "opener-lives" | "opener-gone" | "opener-changed" | "racing";
  /** Something was answered on this connection before. */
  readonly seen: boolean;
  readonly opener: Who;
  readonly who: Who;
  readonly got: { readonly ids: readonly string[] } | { readonly status: number | null } | { readonly closed: string };
}

interface Truth {
  readonly kind: "truth";
  readonly pid: number;
  readonly start: number;
}

type Line =
  | Asked
  | Truth
  | { readonly kind: "broken"; readonly what: string }
  | { readonly kind: "launched"; readonly forced: boolean }
  | { readonly kind: "barrier" };

export interface RaceResult {
  readonly seed: string;
  /** Users that asked. */
  readonly users: readonly number[];
  /** Answers that were not what they should have been; also questions that were not answered as they should. */
  readonly wrong: readonly Asked[];
  /** By what was asked for: identities handed out rightly, and refusals that were right. */
  readonly right: Readonly<Record<string, number>>;
  readonly questions: number;
  readonly processes: number;
  readonly programs: number;
  /** Process numbers that more than one process had, and those of them that were asked for. */
  readonly numbersUsedAgain: number;
  readonly numbersForced: number;
  /** Whatever went wrong with the race itself. */
  readonly broken: readonly string[];
}

const PYTHON = realpathSync("/usr/bin/python3");
const STORM = join(import.meta.dirname, "programs", "storm.py");
const SECOND = 61_001;
const GROUP = 61_003;
const LANES = 4;
const TRUST_DOMAIN = "race.local";

export async function race(seconds: number, seed: string): Promise<RaceResult> {
  const owner = ordinaryUser?.uid ?? 0;
  const second = ordinaryUser === undefined ? null : SECOND;
  const project = makeProject({});
  const programs = makePrograms(project);
  const worker = copyPrograms(project);
  const command = [programs.alpha, "-S", join(worker, "worker.py"), "launched"];
  appendFileSync(join(project, "agentid.yaml"), yaml({ owner, programs, command }));
  const folder = join(project, "lanes");
  mkdirSync(folder);
  giveTo(project);
  chmodSync(project, 0o755);
  const settings = {
    seconds,
    seed,
    lanes: LANES,
    folder,
    project,
    node: process.execPath,
    bin,
    programs,
    command,
    owner,
    second,
    group: GROUP,
  };
  const outcome = await run([join(worker, "storm.py"), JSON.stringify(settings)]);
  const lines = readdirSync(folder)
    .filter((name) => name.startsWith("lane-"))
    .flatMap((name) => readFileSync(join(folder, name), "utf8").split("\n"))
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);
  return judge(lines, { seed, owner, outcome });
}

/** Copies of one interpreter that differ in their last bytes: other digests, other paths. Nothing follows for the third. */
function makePrograms(project: string): Record<"alpha" | "beta" | "gamma", string> {
  const made = (name: string): string => {
    const path = join(project, name);
    copyFileSync(PYTHON, path);
    appendFileSync(path, name);
    return path;
  };
  return { alpha: made("alpha"), beta: made("beta"), gamma: made("gamma") };
}

function copyPrograms(project: string): string {
  for (const name of readdirSync(join(STORM, ".."))) {
    if (name.endsWith(".py")) copyFileSync(join(STORM, "..", name), join(project, name));
  }
  // Compiled once: no process of the race can write there.
  spawnSync(PYTHON, ["-m", "compileall", "-q", project]);
  return project;
}

function yaml({
  owner,
  programs,
  command,
}: {
  owner: number;
  programs: Record<string, string>;
  command: readonly string[];
}) {
  const pinned = (path: string | undefined) =>
    `{ uid: ${owner}, exe: { path: ${JSON.stringify(path)}, sha256: pinned } }`;
  return `trustDomain: ${TRUST_DOMAIN}
identities:
  agents/launched: { launch: ${JSON.stringify(command)} }
  programs/alpha: ${pinned(programs.alpha)}
  programs/beta: ${pinned(programs.beta)}
  programs/node: ${pinned(process.execPath)}
  groups/builders: { supplementaryGid: ${GROUP} }
  users/second: { uid: ${SECOND} }
`;
}

/** In a PID namespace of few numbers, so that they come round again many times; an ordinary user makes one with a user namespace. */
async function run(args: readonly string[]): Promise<string> {
  const namespace =
    process.getuid?.() === 0 ? ["-p", "-f", "--mount-proc"] : ["-U", "--map-root-user", "-p", "-f", "--mount-proc"];
  // The shell stays as the namespace's init: it adopts orphans, as an init does.
  const script = 'echo 500 > /proc/sys/kernel/pid_max 2>/dev/null; "$@"; code=$?; exit $code';
  const child = spawn("unshare", [...namespace, "--kill-child", "sh", "-c", script, "sh", PYTHON, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  await new Promise((resolve) => child.once("close", resolve));
  return output.trim();
}

export const canRace: boolean =
  process.platform === "linux" &&
  spawnSync("unshare", [
    ...(process.getuid?.() === 0 ? [] : ["-U", "--map-root-user"]),
    "-p",
    "-f",
    "--mount-proc",
    PYTHON,
    "-c",
    "",
  ]).status === 0;

function judge(
  lines: readonly Line[],
  { seed, owner, outcome }: { seed: string; owner: number; outcome: string },
): RaceResult {
  const broken = lines.flatMap((line) => (line.kind === "broken" ? [line.what] : []));
  if (outcome !== '{"brokenLanes": 0, "daemon": 0}') broken.push(outcome);
  const asked = lines.filter((line) => line.kind === "asked");
  const right: Record<string, number> = {};
  const wrong: Asked[] = [];
  for (const question of asked) {
    const verdict = verdictOn(question, owner);
    if (verdict === undefined) wrong.push(question);
    else right[verdict] = (right[verdict] ?? 0) + 1;
  }
  const truths = lines.filter((line) => line.kind === "truth");
  const startsOf = new Map<number, Set<number>>();
  for (const { pid, start } of truths) startsOf.set(pid, (startsOf.get(pid) ?? new Set()).add(start));
  return {
    seed,
    users: [...new Set(asked.map(({ who }) => who.uid))].sort((a, b) => a - b),
    wrong,
    right,
    questions: asked.length,
    processes: [...startsOf.values()].reduce((sum, starts) => sum + starts.size, 0),
    programs: truths.length,
    numbersUsedAgain: [...startsOf.values()].filter((starts) => starts.size > 1).length,
    numbersForced: lines.filter((line) => line.kind === "launched" && line.forced).length,
    broken,
  };
}

/** Under which heading an answer was right; undefined where it was wrong. */
function verdictOn({ scene, relation, seen, who, opener, got }: Asked, owner: number): string | undefined {
  const refused = !("ids" in got);
  const handedOut = refused ? undefined : JSON.stringify(got.ids);
  const entitled = (asker: Who): readonly string[] => identitiesOf(asker, owner, scene);
  /** A process that executed a program before the daemon took its connection is that program, and has that one's identities. */
  const hasBecome = (): boolean =>
    !seen &&
    who.pid === opener.pid &&
    who.start === opener.start &&
    who.uid === opener.uid &&
    handedOut === JSON.stringify(entitled(who));
  switch (relation) {
    case "opener-gone":
      return refused ? `refused: ${scene}, ${relation}` : undefined;
    case "opener-changed":
      if (refused) return `refused: ${scene}, ${relation}`;
      return hasBecome() ? `given: ${scene}, executed before it was seen` : undefined;
    case "racing":
      if (refused) return `refused: ${scene}, racing`;
      if (handedOut === JSON.stringify(entitled(opener))) return `given: ${scene}, racing`;
      return hasBecome() ? `given: ${scene}, executed before it was seen` : undefined;
    default: {
      const ids = entitled(relation === "own" ? who : opener);
      if (ids.length === 0) return refused && isPermissionDenied(got) ? `refused: nothing follows` : undefined;
      return handedOut === JSON.stringify(ids)
        ? `given: ${ids.map((id) => id.split("/").slice(3).join("/")).join(" + ")}`
        : undefined;
    }
  }
}

/** Status 7; on a connection's later questions it stands in a table that the little client does not keep. */
function isPermissionDenied(got: Asked["got"]): boolean {
  return "status" in got && (got.status === 7 || got.status === null);
}

/** What agentid.yaml says follows for such a process, in its order. */
function identitiesOf(who: Who, owner: number, scene: string): readonly string[] {
  // Who keeps root in reserve is not for an ordinary user's daemon to look into: nothing is known of its executable.
  const visible = who.uid === owner && scene !== "change-of-user";
  const names = [
    ...(who.launch === null ? [] : [who.launch]),
    ...(visible && who.program !== "gamma" ? [`programs/${who.program}`] : []),
    ...(who.groups.includes(GROUP) ? ["groups/builders"] : []),
    ...(who.uid === SECOND ? ["users/second"] : []),
  ];
  return names.map((name) => `spiffe://${TRUST_DOMAIN}/${name}`);
}

/** Another seed for each commit's digest would hide what a run found: it is printed, and can be given again. */
export function seedFrom(environment: NodeJS.ProcessEnv): string {
  return (
    environment.AGENTID_RACE_SEED ??
    createHash("sha256").update(String(process.hrtime.bigint())).digest("hex").slice(0, 12)
  );
}

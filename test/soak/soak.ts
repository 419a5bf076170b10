import { connect } from "node:net";
import { z } from "zod";
import { type Answer, openConnection } from "./caller.js";
import { calls, type SoakCall, streams } from "./calls.js";

const Resources = z.object({
  timers: z.number(),
  descriptors: z.number(),
  rss: z.number(),
  heapUsed: z.number(),
});
/** What a process holds; memory in bytes. */
export type Resources = z.infer<typeof Resources>;

export interface SoakReport {
  /** For each kind of call, how often each answer came. */
  readonly answers: readonly { readonly call: SoakCall; readonly counts: ReadonlyMap<Answer, number> }[];
  readonly before: Resources;
  readonly after: Resources;
  /** What the daemon holds more than before, for people. */
  readonly remains: readonly string[];
  readonly seconds: number;
}

export interface SoakOptions {
  readonly socketPath: string;
  /** Where the daemon says what it holds: see resources.mjs. */
  readonly resourcesPath: string;
  /** Streams to open and cancel. */
  readonly streams: number;
}

const CONNECTIONS = 4;
const CALLS_AT_ONCE = 16;
/** Then the connection is closed and another takes its place. */
const CALLS_PER_CONNECTION = 500;
/** Connections that were closed take a moment to be gone. */
const SETTLE_MS = 20_000;

/** Opens and cancels that many streams with every kind of bad call between them, and says what was answered and what remains. */
export async function soak({ socketPath, resourcesPath, streams: wanted }: SoakOptions): Promise<SoakReport> {
  const counts = new Map<SoakCall, Map<Answer, number>>();
  const started = performance.now();
  // Once through everything: what is loaded and remembered with the first call stays, and is no leak.
  await callAll(socketPath, plan(Math.min(wanted, CONNECTIONS * CALLS_PER_CONNECTION)), () => {});
  const before = await resourcesOf(resourcesPath);
  await callAll(socketPath, plan(wanted), (call, answer) => {
    const known = counts.get(call) ?? new Map<Answer, number>();
    known.set(answer, (known.get(answer) ?? 0) + 1);
    counts.set(call, known);
  });
  const after = await settled(resourcesPath, before);
  const answers = [...counts].map(([call, own]) => ({ call, counts: own }));
  return { answers, before, after, remains: remaining(before, after), seconds: (performance.now() - started) / 1000 };
}

/** `wanted` streams, and after every second one a call of another kind. */
function* plan(wanted: number): Generator<SoakCall> {
  for (let index = 0; index < wanted; index++) {
    yield streams[index % streams.length] as SoakCall;
    if (index % 2 === 1) yield calls[(index >> 1) % calls.length] as SoakCall;
  }
}

async function callAll(
  socketPath: string,
  planned: Generator<SoakCall>,
  answered: (call: SoakCall, answer: Answer) => void,
): Promise<void> {
  async function keepCalling(): Promise<void> {
    for (;;) {
      const connection = openConnection(socketPath);
      let left = CALLS_PER_CONNECTION;
      let done = false;
      const lane = async () => {
        while (left-- > 0) {
          const { value: call } = planned.next();
          if (call === undefined) {
            done = true;
            return;
          }
          answered(call, await connection.call(call));
        }
      };
      await Promise.all(Array.from({ length: CALLS_AT_ONCE }, lane));
      await connection.close();
      if (done) return;
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, keepCalling));
}

/** Memory that a collector of garbage may keep for itself; a leak of a kilobyte for each of 100,000 streams is twice that. */
const SLACK_BYTES = 48 * 2 ** 20;

function remaining(before: Resources, after: Resources): readonly string[] {
  const allowed = { timers: 0, descriptors: 0, rss: SLACK_BYTES, heapUsed: SLACK_BYTES / 4 };
  return (["timers", "descriptors", "rss", "heapUsed"] as const)
    .filter((what) => after[what] > before[what] + allowed[what])
    .map((what) => `${what}: ${after[what]} held at the end, ${before[what]} at the start`);
}

/** What the daemon holds once it holds no more than `before`; or what it still holds after a while. */
async function settled(resourcesPath: string, before: Resources): Promise<Resources> {
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    const now = await resourcesOf(resourcesPath);
    if (remaining(before, now).length === 0 || performance.now() > deadline) return now;
  }
}

function resourcesOf(resourcesPath: string): Promise<Resources> {
  return new Promise((resolve, reject) => {
    let text = "";
    connect(resourcesPath)
      .on("data", (chunk) => {
        text += String(chunk);
      })
      .on("error", reject)
      .on("close", () => resolve(Resources.parse(JSON.parse(text))));
  });
}

/** The answers that were not the one they may be, for people. */
export function wrongAnswers({ answers }: SoakReport): readonly string[] {
  return answers.flatMap(({ call, counts }) =>
    [...counts]
      .filter(([answer]) => answer !== call.answer)
      .map(([answer, count]) => `${call.name}: ${count} times ${answer} instead of ${call.answer}`),
  );
}

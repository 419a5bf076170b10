import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { CodedError } from "../coded-error.js";

export type AgentAnswer = Readonly<Record<string, unknown>> & { readonly ok?: boolean; readonly text?: string };

/** A real agent process that takes one task a line and answers one line; `feed` lines are counted apart. */
export interface AgentProcess {
  readonly pid: number;
  ask(task: Readonly<Record<string, unknown>>): Promise<AgentAnswer>;
  tell(task: Readonly<Record<string, unknown>>): void;
  /** Numbers of the feed events seen so far, in order. */
  readonly feed: readonly unknown[];
  untilFeed(count: number): Promise<void>;
  end(): Promise<void>;
}

export interface AgentCommand {
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** What the process calls itself; the kernel does not believe it. */
  readonly argv0?: string;
}

const ANSWER_DEADLINE_MS = 20_000;

export function startAgent({ argv, cwd, env, argv0 }: AgentCommand): AgentProcess {
  const [command = "", ...args] = argv;
  const child: ChildProcess = spawn(command, args, {
    cwd,
    env,
    stdio: ["pipe", "pipe", "pipe"],
    ...(argv0 === undefined ? {} : { argv0 }),
  });
  const feed: unknown[] = [];
  const answers: AgentAnswer[] = [];
  let stderr = "";
  let wake: () => void = () => {};
  let gone = false;
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-2000);
  });
  child.once("error", (error) => {
    stderr += error.message;
    gone = true;
    wake();
  });
  child.once("exit", () => {
    gone = true;
    wake();
  });
  if (child.stdout) {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const answer = JSON.parse(line) as AgentAnswer;
      if ("feed" in answer) feed.push(answer.feed);
      else answers.push(answer);
      wake();
    });
  }

  async function until<Result>(look: () => Result | undefined): Promise<Result> {
    const deadline = Date.now() + ANSWER_DEADLINE_MS;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (gone) throw new CodedError("agent-ended", `the agent ended without an answer: ${stderr.trim()}`);
      if (Date.now() > deadline) throw new CodedError("agent-silent", `the agent did not answer: ${stderr.trim()}`);
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, 1000).unref();
      });
    }
  }

  const tell = (task: Readonly<Record<string, unknown>>) => child.stdin?.write(`${JSON.stringify(task)}\n`);
  return {
    pid: child.pid ?? 0,
    feed,
    tell,
    ask(task) {
      tell(task);
      return until(() => answers.shift());
    },
    untilFeed: (count) => until(() => (feed.length >= count ? true : undefined)).then(() => undefined),
    async end() {
      if (gone) return;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await ended;
    },
  };
}

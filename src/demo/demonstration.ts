import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createControlClient } from "../client/control-client.js";
import { CodedError, messageOf } from "../coded-error.js";
import type { AgentidEvent } from "../control-api/events.js";
import type { AgentProcess } from "./agent-process.js";
import { createNarrator } from "./narrator.js";
import { type Stage, scenes } from "./scenes.js";

export interface DemonstrationOptions {
  /** The installed package: `bin/` and `templates/` lie in it. */
  readonly packageDirectory: string;
  readonly write: (text: string) => void;
  readonly colour: boolean;
  readonly pauseMs: number;
  readonly signal: AbortSignal;
}

export interface DemonstrationResult {
  readonly scenes: readonly { readonly title: string; readonly shown: boolean }[];
}

/**
 * Plays every scene on a trust domain of its own, in a temporary project, with real processes.
 * Leaves nothing behind, also when a scene fails or `signal` aborts.
 */
export async function demonstrate(options: DemonstrationOptions): Promise<DemonstrationResult> {
  const narrator = createNarrator(options);
  const project = mkdtempSync(join(tmpdir(), "agentid-demo-"));
  const agents = new Map<string, AgentProcess>();
  let daemon: Daemon | undefined;
  const outcomes: { title: string; shown: boolean }[] = [];
  try {
    const billing = layOut(project, options.packageDirectory);
    narrator.say(
      "agentid: who is calling what, decided by what a process is. Everything below is real and runs on this machine.",
    );
    daemon = await startDaemon(options.packageDirectory, project, options.signal);
    narrator.say(`trust domain ${daemon.ready.trustDomain}, Workload API at ${daemon.ready.workloadApi}`);
    const stage: Stage = {
      narrator,
      client: createControlClient(daemon.ready.control.replace("unix://", "")),
      project,
      environment: environmentFor(daemon.ready),
      billingCommand: [
        process.execPath,
        join(options.packageDirectory, "bin", "agentid.js"),
        "run",
        "billing",
        "--",
        ...billing,
      ],
      plannerCommand: [process.execPath, join(project, "agents", "planner.js")],
      events: daemon.events,
      untilEvent: daemon.untilEvent,
      agents,
    };
    for (const [index, scene] of scenes.entries()) {
      options.signal.throwIfAborted();
      narrator.scene(index + 1, scene.title, scene.before);
      const shown = await scene.play(stage).then(
        (claims) => {
          for (const [claim, holds] of claims) narrator.proved(claim, holds);
          return claims.every(([, holds]) => holds);
        },
        (thrown: unknown) => {
          // Ctrl-C reaches the agents too: that they have gone is not what a scene failed to show.
          options.signal.throwIfAborted();
          narrator.proved(messageOf(thrown), false);
          return false;
        },
      );
      outcomes.push({ title: scene.title, shown });
      await narrator.after(scene.after);
    }
    const shown = outcomes.filter((outcome) => outcome.shown).length;
    narrator.say(
      `\n${shown} of ${outcomes.length} scenes showed what they say.  Next: agentid init --template mcp-server`,
    );
  } finally {
    for (const agent of agents.values()) await agent.end();
    await daemon?.stop();
    rmSync(project, { recursive: true, force: true });
  }
  return { scenes: outcomes };
}

type Ready = Extract<AgentidEvent, { event: "ready" }>;

interface Daemon {
  readonly ready: Ready;
  readonly events: AgentidEvent[];
  untilEvent(wanted: (event: AgentidEvent) => boolean): Promise<AgentidEvent>;
  stop(): Promise<void>;
}

const EVENT_DEADLINE_MS = 20_000;

async function startDaemon(packageDirectory: string, project: string, signal: AbortSignal): Promise<Daemon> {
  const bin = join(packageDirectory, "bin", "agentid.js");
  const child: ChildProcess = spawn(process.execPath, [bin, "dev", "--json", "--project", project], {
    stdio: ["ignore", "pipe", "pipe"],
    // Ctrl-C reaches the demonstration, which ends the daemon after the agents.
    detached: true,
  });
  const events: AgentidEvent[] = [];
  const waiting = new Set<() => void>();
  let stderr = "";
  let gone = false;
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-4000);
  });
  child.once("exit", () => {
    gone = true;
    for (const wake of waiting) wake();
  });
  if (child.stdout) {
    createInterface({ input: child.stdout }).on("line", (line) => {
      events.push(JSON.parse(line) as AgentidEvent);
      for (const wake of waiting) wake();
    });
  }
  async function untilEvent(wanted: (event: AgentidEvent) => boolean): Promise<AgentidEvent> {
    const deadline = Date.now() + EVENT_DEADLINE_MS;
    for (;;) {
      const found = events.find(wanted);
      if (found) return found;
      signal.throwIfAborted();
      if (gone) throw new CodedError("daemon-ended", `the trust domain ended: ${stderr.trim()}`);
      if (Date.now() > deadline) throw new CodedError("event-missing", "an event that must follow did not come");
      await new Promise<void>((resolve) => {
        const wake = () => {
          waiting.delete(wake);
          resolve();
        };
        waiting.add(wake);
        setTimeout(wake, 500).unref();
      });
    }
  }
  async function stop(): Promise<void> {
    if (gone) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await ended;
  }
  const ready = await untilEvent(({ event }) => event === "ready").catch(async (thrown: unknown) => {
    await stop();
    throw thrown;
  });
  return { ready: ready as Ready, events, untilEvent, stop };
}

/** Copies the template and fills in what differs from machine to machine. Returns the billing agent's command. */
function layOut(project: string, packageDirectory: string): readonly string[] {
  cpSync(join(packageDirectory, "templates", "demo"), project, { recursive: true });
  writeFileSync(join(project, "package.json"), '{ "type": "module" }\n');
  const hasPython = spawnSync("python3", ["-c", ""], { stdio: "ignore" }).status === 0;
  const billing = hasPython ? ["python3", "agents/billing.py"] : [process.execPath, "agents/billing.js"];
  const file = join(project, "agentid.yaml");
  const quoted = (text: string) => JSON.stringify(text);
  const yaml = readFileSync(file, "utf8")
    .replace("<billing command>", billing.map(quoted).join(", "))
    .replace("user: <user>", `user: ${quoted(userInfo().username)}`)
    .replace("<sha256 of node>", createHash("sha256").update(readFileSync(process.execPath)).digest("hex"))
    .replaceAll("<node>", quoted(process.execPath))
    .replaceAll(/<package>([^\]]+)/g, (_, rest: string) => quoted(packageDirectory + rest.trim()));
  writeFileSync(file, yaml);
  return billing;
}

function environmentFor(ready: Ready): NodeJS.ProcessEnv {
  const urls = Object.entries(ready.services).map(([name, { url }]) => [
    `AGENTID_URL_${name.toUpperCase().replaceAll("-", "_")}`,
    url,
  ]);
  return {
    ...process.env,
    AGENTID_CONTROL: ready.control,
    SPIFFE_ENDPOINT_SOCKET: ready.workloadApi,
    ...Object.fromEntries(urls),
  };
}

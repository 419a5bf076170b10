import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Flags } from "@oclif/core";
import { CodedError } from "../coded-error.js";
import { type AgentidEvent, agentidEvent } from "../control-api/events.js";
import { AgentidCommand } from "./base-command.js";

export default class Up extends AgentidCommand {
  static override summary = "Start the trust domain in the background";
  static override description = "See it with `agentid status` or `agentid dashboard`, stop it with `agentid down`.";
  static override flags = { ephemeral: Flags.boolean({ summary: "keep nothing on disk" }) };

  async run(): Promise<AgentidEvent> {
    const { flags } = await this.parse(Up);
    const bin = fileURLToPath(new URL("../../bin/agentid.js", import.meta.url));
    const project = flags.project === undefined ? [] : ["--project", flags.project];
    const child = spawn(
      process.execPath,
      [bin, "dev", "--json", "--detached", ...project, ...(flags.ephemeral ? ["--ephemeral"] : [])],
      { detached: true, stdio: ["ignore", "pipe", "pipe"] },
    );
    let complaint = "";
    child.stderr.on("data", (chunk: Buffer) => {
      complaint += chunk.toString();
    });
    const ended = new Promise<never>((_, reject) => {
      child.once("error", reject);
      child.once("exit", () => reject(new CodedError("start-failed", complaint.replace(/^agentid: /, "").trim())));
    });
    const first = new Promise<AgentidEvent>((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", (line) => {
        const parsed = agentidEvent.safeParse(JSON.parse(line));
        if (parsed.success) resolve(parsed.data);
        // Before it is ready, the only line it prints is the error it ends with.
        else reject(new CodedError("start-failed", errorIn(line)));
      });
    });
    const ready = await Promise.race([first, ended]);
    ended.catch(() => undefined);
    if (ready.event === "ready")
      this.log(`${ready.trustDomain} runs, pid ${ready.pid}. See it: agentid dashboard. Stop it: agentid down`);
    child.unref();
    for (const stream of [child.stdout, child.stderr]) stream.destroy();
    return ready;
  }
}

function errorIn(line: string): string {
  const parsed = JSON.parse(line) as { error?: { message?: string; hint?: string } };
  return [parsed.error?.message ?? line, parsed.error?.hint].filter(Boolean).join("\n");
}

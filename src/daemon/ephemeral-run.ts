import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { constants } from "node:os";
import { CodedError, codeOf } from "../coded-error.js";
import type { CallDecidedEvent } from "../control-api/events.js";
import { type EphemeralRunReport, junitReport } from "./denial-report.js";
import { startTrustDomain } from "./trust-domain.js";

export interface EphemeralRunOptions {
  readonly command: readonly string[];
  readonly projectDirectory: string | undefined;
  /** `[CALLER:]SERVICE[/TARGET]`, each with `*` as wildcard. */
  readonly expectDenied: readonly string[];
  /** `.xml` is written as JUnit, everything else as JSON. */
  readonly reportFiles: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
}

const DENIED = 3;

/** Runs a command inside a trust domain that lives as long as the command and leaves nothing behind. */
export async function runInEphemeralTrustDomain(options: EphemeralRunOptions): Promise<EphemeralRunReport> {
  const expectations = options.expectDenied.map((pattern) => ({ pattern, matches: compileExpectation(pattern) }));
  const domain = await startTrustDomain({
    projectDirectory: options.projectDirectory,
    withoutProject: "ci.local",
    ephemeral: true,
    ownSockets: true,
    reload: "auto",
    environment: options.environment,
  });
  const calls: CallDecidedEvent[] = [];
  domain.subscribe(0, (event) => {
    if (event.event === "call") calls.push(event);
  });
  let commandExitCode: number;
  try {
    commandExitCode = await runCommand(options.command, { ...options.environment, ...domain.environment });
  } finally {
    await domain.stop("the command ended");
  }
  const denials = calls
    .filter(({ verdict }) => verdict === "DENY")
    .map((call) => ({ ...call, expected: expectations.some(({ matches }) => matches(call)) }));
  const unexpected = denials.some(({ expected }) => !expected);
  const report: EphemeralRunReport = {
    trustDomain: domain.ready.trustDomain,
    command: options.command,
    commandExitCode,
    exitCode: commandExitCode !== 0 ? commandExitCode : unexpected ? DENIED : 0,
    calls: calls.length,
    denials,
    expectedButAbsent: expectations.filter(({ matches }) => !denials.some(matches)).map(({ pattern }) => pattern),
  };
  for (const file of options.reportFiles) {
    writeFileSync(file, file.endsWith(".xml") ? junitReport(report) : `${JSON.stringify(report, null, 2)}\n`);
  }
  return report;
}

/** Signals that ask us to stop are the command's to answer; its exit code tells how it did. */
function runCommand(command: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const [name = "", ...args] = command;
  const child = spawn(name, args, { stdio: "inherit", env });
  const forwarded = (["SIGTERM", "SIGHUP", "SIGINT"] as const).map((signal) => {
    // Ctrl-C in a terminal reaches the whole foreground group, the command among it.
    const forward = () => (signal === "SIGINT" && process.stdin.isTTY ? undefined : child.kill(signal));
    process.on(signal, forward);
    return () => process.off(signal, forward);
  });
  return new Promise<number>((resolve) => {
    child.once("error", (error) => {
      process.stderr.write(`agentid: ${name}: ${error.message}\n`);
      // As shells do: not found, or found and not executable. A folder on PATH that we may not enter answers EACCES for every name.
      resolve(codeOf(error) === "ENOENT" || !name.includes("/") ? 127 : 126);
    });
    child.once("exit", (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  }).finally(() => {
    for (const stop of forwarded) stop();
  });
}

/** Throws CodedError `bad-request` for a pattern that can match nothing. */
function compileExpectation(pattern: string): (call: CallDecidedEvent) => boolean {
  const parts = /^(?:(?<caller>[^:]+):)?(?<service>[^/:]+)(?:\/(?<target>.+))?$/.exec(pattern)?.groups;
  if (!parts) {
    throw new CodedError("bad-request", `--expect-denied ${JSON.stringify(pattern)} is not [CALLER:]SERVICE[/TARGET]`);
  }
  const caller = wildcard(parts.caller ?? "*");
  const service = wildcard(parts.service ?? "*");
  const target = wildcard(parts.target ?? "*");
  return (call) =>
    (caller(call.caller) || caller(call.caller.split("/").at(-1) ?? "")) &&
    service(call.service) &&
    (target(call.target) || target(call.target.replace(/^\//, "")));
}

function wildcard(text: string): (value: string) => boolean {
  const pieces = text.split("*").map((piece) => piece.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const expression = new RegExp(`^${pieces.join(".*")}$`);
  return (value) => expression.test(value);
}

import { CodedError, codeOf, messageOf } from "../coded-error.js";

/** Exit codes of every command: 0 done, and these. */
export const EXIT = { failed: 1, usage: 2, denied: 3, notRunning: 4 } as const;

const EXIT_CODES: Readonly<Record<string, number>> = {
  "daemon-not-running": EXIT.notRunning,
  "launch-refused": EXIT.denied,
  "not-administrator": EXIT.denied,
  "bad-request": EXIT.usage,
  "wrong-usage": EXIT.usage,
  "workload-api-unavailable": EXIT.notRunning,
  "workload-api-permission-denied": EXIT.denied,
  "workload-api-address-missing": EXIT.usage,
  "workload-api-address-invalid": EXIT.usage,
  // As shells have it for Ctrl-C.
  interrupted: 130,
};

/** Says what happened and what to do next, and sets the exit code. With `json` one line, as everything that commands print then and is read line by line. */
export function printFailure(thrown: unknown, json: boolean): void {
  const [code, message] = [codeOf(thrown), messageOf(thrown)];
  const hint = thrown instanceof CodedError ? thrown.hint : undefined;
  if (json) process.stdout.write(`${JSON.stringify({ error: { code, message, hint } })}\n`);
  else {
    const indented = hint === undefined ? "" : `\n         ${hint.replaceAll("\n", "\n         ")}`;
    process.stderr.write(`agentid: ${message}${indented}\n`);
  }
  process.exitCode = EXIT_CODES[code] ?? EXIT.failed;
}

import { existsSync } from "node:fs";
import type { ControlClient } from "../client/control-client.js";
import { secretVariables } from "../client/launch-environment.js";
import { sandboxSupport } from "../client/sandbox-support.js";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import { warningsOf } from "../daemon/project-warnings.js";
import { openKeychain } from "../platform/keychain.js";
import { offlineProject } from "./offline-project.js";

/** One thing that was looked at. `warning` is for the owner to judge; what has `failed` keeps something from working. */
export interface Finding {
  readonly check: "node" | "configuration" | "around-relay" | "daemon" | "keychain" | "sandbox" | "environment";
  readonly state: "ok" | "warning" | "failed";
  readonly message: string;
  readonly hint?: string;
}

const OLDEST_NODE = [22, 22] as const;
const SPIFFE_SOCKET = "SPIFFE_ENDPOINT_SOCKET";

export function checkNode(version: string): Finding {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const isOld = major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1]);
  const message = `Node ${version} on ${process.platform} ${process.arch}`;
  if (!isOld) return { check: "node", state: "ok", message };
  return { check: "node", state: "failed", message, hint: `agentid needs Node ${OLDEST_NODE.join(".")} or later` };
}

/** The files of the project as the next start would take them, and which services can be called around the relay (D26). */
export async function checkProject(named: string | undefined): Promise<readonly Finding[]> {
  let project: Awaited<ReturnType<typeof offlineProject>>;
  try {
    project = await offlineProject(named);
  } catch (thrown) {
    return [failed("configuration", thrown)];
  }
  const { config, policies, warnings } = project;
  const counts = `identities ${config.identities.length}, services ${config.services.length}, rules ${policies.rules.length}`;
  const warned = warningsOf({ config, warnings }).map(({ code, message }): Finding => {
    if (code !== "around-relay") return { check: "configuration", state: "warning", message };
    const hint = "only what agentid starts, or what listens on a Unix socket in a private folder, has no way around";
    return { check: "around-relay", state: "warning", message, hint };
  });
  return [{ check: "configuration", state: "ok", message: counts }, ...warned];
}

/** Whether the trust domain runs, what it finds wrong itself, and whether programs of this shell would find it. */
export async function checkDaemon(
  connect: () => ControlClient,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<readonly Finding[]> {
  try {
    const { pid, trustDomain, problems, workloadApi } = await connect().call("status", {});
    const named = environment[SPIFFE_SOCKET];
    return [
      { check: "daemon", state: "ok", message: `${trustDomain} runs, pid ${pid}` },
      ...problems.map(
        ({ severity, message }): Finding => ({
          check: "daemon",
          state: severity === "error" ? "failed" : "warning",
          message,
        }),
      ),
      ...(named === undefined || named === workloadApi ? [] : [elsewhere(named, workloadApi)]),
    ];
  } catch (thrown) {
    if (codeOf(thrown) === "no-project") return [];
    if (codeOf(thrown) !== "daemon-not-running") return [failed("daemon", thrown)];
    return [{ check: "daemon", state: "warning", message: "the trust domain does not run", hint: "agentid dev" }];
  }
}

function elsewhere(named: string, workloadApi: string): Finding {
  const path = named.startsWith("unix:") ? named.slice("unix:".length).replace(/^\/\//, "") : undefined;
  const dead = path !== undefined && !existsSync(path) ? ", which is not there" : "";
  const message = `${SPIFFE_SOCKET} of this shell is ${named}${dead}: programs started in it ask there`;
  return { check: "environment", state: "warning", message, hint: `this trust domain's is ${workloadApi}` };
}

export async function checkKeychain(): Promise<Finding> {
  if ((await openKeychain()) !== undefined) {
    return {
      check: "keychain",
      state: "ok",
      message: "the system's keychain answers: CA keys and secrets are kept under it",
    };
  }
  const message =
    "no keychain answers: CA keys are in files that your user can read, secrets come from files and commands";
  return {
    check: "keychain",
    state: "warning",
    message,
    hint: "on Linux a secret service, such as gnome-keyring, on the session's D-Bus",
  };
}

export function checkSandbox(): Finding {
  if (process.platform !== "linux") {
    return { check: "sandbox", state: "warning", message: "the sandbox has been tried on Linux only" };
  }
  try {
    const { bubblewrap } = sandboxSupport();
    return { check: "sandbox", state: "ok", message: `agentid run --sandbox works, by ${bubblewrap}` };
  } catch (thrown) {
    return { ...failed("sandbox", thrown), state: "warning" };
  }
}

/** Keys in the shell are what identities are there to replace. Names only: a value is nobody's business. */
export function checkEnvironment(environment: Readonly<Record<string, string | undefined>>): Finding {
  const names = secretVariables(environment);
  if (names.length === 0) {
    return { check: "environment", state: "ok", message: "nothing in this shell looks like a secret" };
  }
  const message = `whatever is started in this shell can read ${names.join(", ")}; agentid run takes them out`;
  return {
    check: "environment",
    state: "warning",
    message,
    hint: "agentid secret set NAME, and egress for the target",
  };
}

function failed(check: Finding["check"], thrown: unknown): Finding {
  const hint = thrown instanceof CodedError ? thrown.hint : undefined;
  return { check, state: "failed", message: messageOf(thrown), ...(hint !== undefined && { hint }) };
}

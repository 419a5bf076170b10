import { parseArgs } from "node:util";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import type { LaunchGrant } from "../control-api/routes.js";
import type { InheritedState } from "../platform/inherited-state.js";
import { request } from "../platform/node-http.js";
import { adopterOfOrphans } from "../platform/orphan-adopter.js";
import { becomeProcess } from "./become.js";
import { findControlSocket } from "./control-socket.js";
import { commandPathOrExit, complain } from "./exit-like-a-shell.js";
import { launchedEnvironment } from "./launch-environment.js";

/*
 * Never touches process.stdin, stdout or stderr, and loads neither the command framework nor zod: an agent's start waits for this.
 */

const EXIT = { failed: 1, usage: 2, denied: 3, notRunning: 4 } as const;
const USAGE = "usage: agentid run NAME [--instance INSTANCE|auto] [--sandbox] -- CMD [ARG…]";

/** The daemon said no, in its own words. */
class Refusal extends CodedError<"launch-refused"> {
  override readonly name = "Refusal";
  readonly status: number;

  constructor(status: number, detail: string, hint: string | undefined) {
    super("launch-refused", detail, hint === undefined ? {} : { hint });
    this.status = status;
  }
}

/** Asks the daemon for the launch that `args` describe and becomes the command, or exits. */
export async function launch(args: readonly string[], initialState: InheritedState): Promise<never> {
  const { name, argv, instance, sandbox } = parse(args);
  // A command that does not exist is the shell's business, not the daemon's.
  commandPathOrExit(argv[0] ?? "", process.env);
  const socket = controlSocket();
  const workingDirectory = process.cwd();
  const wanted = {
    name,
    argv,
    workingDirectory,
    ...(instance !== undefined && { instance }),
    ...(sandbox && { sandbox }),
    adopter: adopterOfOrphans(),
  };
  const grant = await askForLaunch(socket, wanted).catch(giveUp);
  const environment = launchedEnvironment(process.env, grant);
  if (grant.sandbox === undefined) return becomeProcess(argv, environment, { initialState });
  const { becomeSandboxed } = await import("./become-sandboxed.js");
  return becomeSandboxed(argv, environment, { ...grant, sandbox: grant.sandbox }, initialState);
}

interface Arguments {
  readonly name: string;
  readonly argv: readonly string[];
  readonly instance: string | undefined;
  readonly sandbox: boolean;
}

function parse(args: readonly string[]): Arguments {
  const dashes = args.indexOf("--");
  const argv = dashes === -1 ? [] : args.slice(dashes + 1);
  try {
    const { values, positionals } = parseArgs({
      args: args.slice(0, dashes === -1 ? undefined : dashes),
      options: { instance: { type: "string" }, sandbox: { type: "boolean", default: false } },
      allowPositionals: true,
    });
    const [name, ...unknown] = positionals;
    const { instance, sandbox } = values;
    if (name !== undefined && unknown.length === 0 && argv.length > 0) return { name, argv, instance, sandbox };
  } catch {
    // An option that there is not: the usage says which there are.
  }
  complain(USAGE);
  process.exit(EXIT.usage);
}

/** Without an address to ask, the command line is wrong before anything was asked. */
function controlSocket(): string {
  try {
    return findControlSocket(undefined, process.env);
  } catch (thrown) {
    if (!(thrown instanceof CodedError)) throw thrown;
    complain(`agentid: ${thrown.message}${thrown.hint === undefined ? "" : `\n  ${thrown.hint}`}`);
    process.exit(EXIT.usage);
  }
}

/** POST /v1/launch. Rejects with Refusal, or with Node's error when nobody answers. */
function askForLaunch(socketPath: string, wanted: object): Promise<LaunchGrant> {
  const body = JSON.stringify(wanted);
  return new Promise((resolve, reject) => {
    const asking = request(
      {
        socketPath,
        method: "POST",
        path: "/v1/launch",
        agent: false,
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          try {
            resolve(grantIn(response.statusCode ?? 0, parseJson(Buffer.concat(chunks).toString("utf8"))));
          } catch (thrown) {
            reject(thrown);
          }
        });
      },
    );
    asking.on("error", reject);
    asking.end(body);
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // not ours: what follows says that the answer was not understood
  }
}

function grantIn(status: number, answer: unknown): LaunchGrant {
  if (status === 200 && isGrant(answer)) return answer;
  const problem = typeof answer === "object" && answer !== null ? (answer as Record<string, unknown>) : {};
  const detail =
    typeof problem.detail === "string" ? problem.detail : `the daemon's answer (${status}) was not understood`;
  throw new Refusal(status, detail, typeof problem.hint === "string" ? problem.hint : undefined);
}

function isGrant(answer: unknown): answer is LaunchGrant {
  if (typeof answer !== "object" || answer === null) return false;
  const { setEnv, keepEnv, dropEnv = [] } = answer as Record<string, unknown>;
  return (
    typeof setEnv === "object" &&
    setEnv !== null &&
    Object.values(setEnv).every((value) => typeof value === "string") &&
    Array.isArray(keepEnv) &&
    keepEnv.every((name) => typeof name === "string") &&
    Array.isArray(dropEnv) &&
    dropEnv.every((name) => typeof name === "string")
  );
}

function giveUp(thrown: unknown): never {
  if (thrown instanceof Refusal) {
    const lines = [thrown.message, ...(thrown.hint?.split("\n") ?? [])];
    complain(`agentid: ${lines.join("\n  ")}`);
    process.exit(thrown.status >= 400 && thrown.status < 500 ? EXIT.denied : EXIT.failed);
  }
  if (["ENOENT", "ECONNREFUSED", "ENOTSOCK"].includes(codeOf(thrown))) {
    complain("agentid: no trust domain is running for this project\n  next: agentid dev");
    process.exit(EXIT.notRunning);
  }
  complain(`agentid: the daemon could not be asked: ${messageOf(thrown)}`);
  process.exit(EXIT.failed);
}

import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Finished, giveTo, run, runtimeBase, startProgram, python as usersPython } from "../e2e/agentid.js";
import { prepareGo, prepareJavaClient } from "./foreign-workloads.js";
import { preparePythonEnvironment } from "./python-environment.js";

const execute = promisify(execFile);
const here = join(import.meta.dirname, "clients");

/** One request, as a client is asked to make it. */
export interface Asked {
  readonly method: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Its body is what this file has. */
  readonly file?: string;
  readonly chunked?: boolean;
}

/** What the client saw. */
export interface Answered {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer;
  /** Its own words for a status that is an error. */
  readonly failure: string | undefined;
}

/** A program that nobody here wrote, or a few lines on a library that nobody here wrote. */
export interface HttpClient {
  readonly name: string;
  /** The executable, by which it has its identity `agents/IDENTITY`. */
  readonly exe: string;
  readonly identity: string;
  readonly can: {
    readonly chunked: boolean;
    readonly cookies: boolean;
    readonly stream: boolean;
    /** Requests with different methods and headers in one run. */
    readonly mix: boolean;
  };
  /** Makes the requests one after the other, in one process and session. */
  ask(requests: readonly Asked[]): Promise<readonly Answered[]>;
  /** Prints the lines of an endless answer as they come. */
  follow(url: string): ReturnType<typeof startProgram>;
}

export function found(name: string): string | undefined {
  return [`/usr/bin/${name}`, `/usr/sbin/${name}`, `/usr/local/bin/${name}`].find((path) => existsSync(path));
}

/** True, and said aloud, when this machine lacks one of `programs`. */
export function missing(what: string, programs: Readonly<Record<string, string | undefined>>): boolean {
  const lacking = Object.entries(programs).flatMap(([name, path]) => (path === undefined ? [name] : []));
  if (lacking.length > 0) process.stderr.write(`SKIPPED: ${what}: this machine lacks ${lacking.join(", ")}\n`);
  return lacking.length > 0;
}

/** Every client that this machine has. */
export async function httpClients(): Promise<readonly HttpClient[]> {
  const curl = found("curl");
  const wget = found("wget");
  missing("HTTP clients", { curl, wget });
  const made = [
    curl === undefined ? [] : [curlClient(curl)],
    wget === undefined ? [] : [wgetClient(wget)],
    [fetchClient()],
    await pythonClients().catch(skipped),
    await goClient().catch(skipped),
    await javaClient().catch(skipped),
  ];
  return made.flat();
}

function skipped(thrown: unknown): readonly HttpClient[] {
  process.stderr.write(`SKIPPED: an HTTP client: ${String(thrown).split("\n")[0]}\n`);
  return [];
}

/** A folder for what one run reads and writes. */
function folder(): string {
  const made = mkdtempSync(join(runtimeBase(), "c-"));
  giveTo(made);
  return made;
}

function curlClient(exe: string): HttpClient {
  return {
    name: "curl",
    exe: realpathSync(exe),
    identity: "curl",
    can: { chunked: true, cookies: true, stream: true, mix: true },
    async ask(requests) {
      const cwd = folder();
      const args = requests.flatMap(({ method, url, headers = {}, file, chunked }, index) => [
        ...(index === 0 ? [] : ["--next"]),
        ...["-sS", "--fail-with-body", "-o", `${index}.body`, "-D", `${index}.head`, "-b", "jar", "-c", "jar"],
        ...(method === "HEAD" ? ["-I"] : ["-X", method]),
        ...Object.entries(headers).flatMap(([name, value]) => ["-H", `${name}: ${value}`]),
        ...(file === undefined ? [] : ["-T", file]),
        ...(chunked ? ["-H", "Transfer-Encoding: chunked"] : []),
        url,
      ]);
      const { stderr } = await run(exe, args, { cwd });
      return requests.map(({ method }, index) => {
        const body = join(cwd, `${index}.body`);
        if (!existsSync(join(cwd, `${index}.head`))) throw new Error(stderr);
        const [head] = heads(readFileSync(join(cwd, `${index}.head`), "utf8"));
        if (head === undefined) throw new Error(stderr);
        return {
          ...head,
          body: method === "HEAD" || !existsSync(body) ? Buffer.alloc(0) : readFileSync(body),
          failure: head.status < 400 ? undefined : stderr,
        };
      });
    },
    follow: (url) => startProgram(exe, ["-sSN", url], { cwd: folder() }),
  };
}

/** Writes the bodies of several answers one behind the other: the first answer has them all. */
function wgetClient(exe: string): HttpClient {
  return {
    name: "wget",
    exe: realpathSync(exe),
    identity: "wget",
    can: { chunked: false, cookies: true, stream: false, mix: false },
    async ask(requests) {
      const { method = "GET", headers = {}, file } = requests[0] ?? {};
      const cwd = folder();
      const args = [
        ...["-nv", "-S", "-O", "body", "--max-redirect=0", "--tries=1", `--method=${method}`],
        // With it, wget waits for the body of a 304, which has none; it does so without the relay as well.
        ...("If-None-Match" in headers ? [] : ["--content-on-error"]),
        ...Object.entries(headers).map(([name, value]) => `--header=${name}: ${value}`),
        ...(file === undefined ? [] : [`--body-file=${file}`]),
        ...requests.map(({ url }) => url),
      ];
      const { code, stderr } = await run(exe, args, { cwd });
      const seen = heads(stderr.replaceAll(/^ {2}/gm, ""));
      if (seen.length !== requests.length) throw new Error(stderr);
      const body = existsSync(join(cwd, "body")) ? readFileSync(join(cwd, "body")) : Buffer.alloc(0);
      return seen.map((head, index) => ({
        ...head,
        body: index === 0 ? body : Buffer.alloc(0),
        failure: code === 0 || head.status < 400 ? undefined : stderr,
      }));
    },
    follow: () => {
      throw new Error("wget is asked for no stream");
    },
  };
}

/** Heads of responses in a text, without what is before, between and behind them; those of `100 Continue` left out. */
function heads(text: string): Pick<Answered, "status" | "headers">[] {
  const all: { status: number; headers: [string, string][] }[] = [];
  for (const line of text.split(/\r?\n/)) {
    const status = /^HTTP\/1\.[01] (\d{3})/.exec(line)?.[1];
    const [, name, value] = /^([A-Za-z0-9-]+): (.*)$/.exec(line) ?? [];
    if (status !== undefined) all.push({ status: Number(status), headers: [] });
    else if (name !== undefined && value !== undefined) all.at(-1)?.headers.push([name, value]);
  }
  return all.filter(({ status }) => status >= 200);
}

/** A client that takes the requests as JSON on its standard input and gives the answers on its output. */
function scripted(
  about: Pick<HttpClient, "name" | "exe" | "identity" | "can">,
  [command, ...args]: readonly [string, ...string[]],
  env: NodeJS.ProcessEnv = {},
): HttpClient {
  return {
    ...about,
    async ask(requests) {
      return answersOf(await run(command, args, { cwd: folder(), env, input: JSON.stringify(requests) }));
    },
    follow(url) {
      const program = startProgram(command, args, { cwd: folder(), env });
      program.child.stdin?.end(JSON.stringify([{ method: "GET", url, stream: true }]));
      return program;
    },
  };
}

export function answersOf({ code, stdout, stderr }: Finished): readonly Answered[] {
  if (code !== 0) throw new Error(stderr);
  const answers = JSON.parse(stdout) as { body: string | null; failure: string | null }[];
  return answers.map((one) => ({
    ...(one as unknown as Answered),
    body: Buffer.from(one.body ?? "", "base64"),
    failure: one.failure ?? undefined,
  }));
}

function fetchClient(): HttpClient {
  const about = { name: "Node's fetch", exe: realpathSync(process.execPath), identity: "node" };
  const can = { chunked: true, cookies: false, stream: true, mix: true };
  return scripted({ ...about, can }, [process.execPath, join(here, "client.mjs")]);
}

/** Two libraries for the Python that the ordinary user can run. */
async function pythonClients(): Promise<readonly HttpClient[]> {
  const made = await preparePythonEnvironment("clients-python", join(here, "requirements.txt"));
  if ("missing" in made) throw new Error(made.missing);
  if (usersPython === undefined) throw new Error("no Python that the ordinary user can run");
  const { stdout } = await execute(usersPython, [
    "-c",
    "import os, sys; print('%d.%d' % sys.version_info[:2], os.path.realpath('/proc/self/exe'))",
  ]);
  const [version = "", exe = ""] = stdout.trim().split(" ");
  const packages = join(made.directory, "lib", `python${version}`, "site-packages");
  if (!existsSync(packages)) throw new Error(`requests and httpx were installed for another Python than ${exe}`);
  const can = { chunked: true, cookies: true, stream: true, mix: true };
  return ["requests", "httpx"].map((name) =>
    scripted({ name, exe, identity: "python", can }, [usersPython ?? "", join(here, "client.py"), name], {
      PYTHONPATH: packages,
    }),
  );
}

async function goClient(): Promise<readonly HttpClient[]> {
  const go = await prepareGo("go-http-client");
  if ("missing" in go) throw new Error(go.missing);
  const { exePath } = go.workload;
  const can = { chunked: true, cookies: true, stream: true, mix: true };
  return [scripted({ name: "Go's net/http", exe: exePath, identity: "go", can }, [exePath, "call"])];
}

async function javaClient(): Promise<readonly HttpClient[]> {
  const java = await prepareJavaClient();
  if ("missing" in java) throw new Error(java.missing);
  const { exePath, command } = java.workload;
  const [program = "", ...args] = command;
  // It has no JSON of its own: a line for each request, with tabs in it.
  const lineOf = ({ method, url, headers = {}, file = "", chunked, stream }: Asked & { stream?: boolean }) =>
    [method, url, file, chunked ? "chunked" : "", stream ? "stream" : ""]
      .concat(Object.entries(headers).map((header) => header.join(": ")))
      .join("\t");
  return [
    {
      name: "Java's HttpClient",
      exe: exePath,
      identity: "java",
      can: { chunked: true, cookies: true, stream: true, mix: true },
      async ask(requests) {
        return answersOf(await run(program, args, { cwd: folder(), input: requests.map(lineOf).join("\n") }));
      },
      follow(url) {
        const started = startProgram(program, args, { cwd: folder() });
        started.child.stdin?.end(lineOf({ method: "GET", url, stream: true }));
        return started;
      },
    },
  ];
}

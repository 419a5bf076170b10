import { execFile } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import type { RequestListener } from "node:http";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, makeProject, type RunningDev, startDev, python as usersPython } from "../e2e/agentid.js";
import { type Outside, runOutside, secret } from "../relay/outside.js";
import { preparePythonEnvironment } from "./python-environment.js";

/** The vendors' own SDKs, unmodified, by base URL alone: a vendor's API that stands here sees the key, the agent does not. */

const execute = promisify(execFile);
const here = join(import.meta.dirname, "egress");
const SDKS = ["openai@7.57.0", "@anthropic-ai/sdk@1.12.0"];
const KEYS = { openai: "sk-test-openai-0123456789abcdef", anthropic: "sk-ant-test-0123456789abcdef" };

const node = await prepareNode();
const python = await preparePython();
for (const prepared of [node, python]) {
  if ("missing" in prepared) process.stderr.write(`SKIPPED: SDKs of LLM vendors: ${prepared.missing}\n`);
}

/** A Python that the ordinary user can run, and the folder that has the SDKs for it. */
async function preparePython(): Promise<{ readonly folder: string } | { readonly missing: string }> {
  const made = await preparePythonEnvironment("egress-python", join(here, "requirements.txt")).catch(
    (thrown: unknown) => ({ missing: `the SDKs for Python could not be installed: ${String(thrown).split("\n")[0]}` }),
  );
  if ("missing" in made) return made;
  const version = "import sys; print('%d.%d' % sys.version_info[:2])";
  const { stdout } = await execute(usersPython ?? "python3", ["-c", version]);
  const folder = join(made.directory, "lib", `python${stdout.trim()}`, "site-packages");
  return existsSync(folder) ? { folder } : { missing: `they were installed for another Python than ${usersPython}` };
}

async function prepareNode(): Promise<{ readonly folder: string } | { readonly missing: string }> {
  const folder = join(
    import.meta.dirname,
    "../../.cache/interop",
    `egress-node-${SDKS.join("-").replaceAll(/[@/]/g, "_")}`,
  );
  if (existsSync(join(folder, "node_modules/openai"))) return { folder };
  mkdirSync(folder, { recursive: true });
  try {
    await execute("npm", ["install", "--prefix", folder, "--no-save", "--ignore-scripts", "--no-audit", ...SDKS], {
      cwd: folder,
    });
  } catch (thrown) {
    return { missing: `the SDKs for Node could not be installed: ${String(thrown).split("\n")[0]}` };
  }
  return { folder };
}

/** What the two APIs answer, in the words of their documentation. */
const vendors: RequestListener = (request, response) => {
  const { headers, url } = request;
  const keyed =
    url === "/v1/messages"
      ? headers["x-api-key"] === KEYS.anthropic && headers.authorization === undefined
      : headers.authorization === `Bearer ${KEYS.openai}` && headers["x-api-key"] === undefined;
  if (!keyed) return void response.writeHead(401).end('{"error":{"message":"wrong key"}}');
  const { stream } = JSON.parse(api.arrived.at(-1)?.body ?? "{}") as { stream?: boolean };
  const usage = { input_tokens: 1, output_tokens: 1 };
  const message = {
    id: "m1",
    type: "message",
    role: "assistant",
    model: "m",
    stop_reason: null,
    stop_sequence: null,
    usage,
  };
  const json = (body: object) => response.setHeader("content-type", "application/json").end(JSON.stringify(body));
  if (url === "/v1/chat/completions" && !stream) {
    const choice = { index: 0, finish_reason: "stop", message: { role: "assistant", content: "hello yourself" } };
    return void json({ id: "c1", object: "chat.completion", created: 1, model: "m", choices: [choice] });
  }
  if (url === "/v1/messages" && !stream) {
    return void json({ ...message, stop_reason: "end_turn", content: [{ type: "text", text: "hello yourself" }] });
  }
  response.setHeader("content-type", "text/event-stream");
  if (url === "/v1/chat/completions") {
    for (const content of ["hello ", "yourself"]) {
      const choices = [{ index: 0, delta: { content }, finish_reason: null }];
      response.write(
        `data: ${JSON.stringify({ id: "c1", object: "chat.completion.chunk", created: 1, model: "m", choices })}\n\n`,
      );
    }
    return void response.end("data: [DONE]\n\n");
  }
  const event = (type: string, more: object) =>
    response.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`);
  event("message_start", { message: { ...message, content: [] } });
  event("content_block_start", { index: 0, content_block: { type: "text", text: "" } });
  for (const text of ["hello ", "yourself"])
    event("content_block_delta", { index: 0, delta: { type: "text_delta", text } });
  event("content_block_stop", { index: 0 });
  event("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 2 } });
  event("message_stop", {});
  response.end();
};

let api: Outside;
let project: string;
let dev: RunningDev;
const commands = {
  node: [process.execPath, "agent.mjs"],
  python: [usersPython ?? "python3", "agent.py"],
};

beforeAll(async () => {
  api = await runOutside();
  api.answer = vendors;
  const url = `https://127.0.0.1:${api.port}`;
  project = makeProject({
    "agentid.yaml": `trustDomain: shop.local
identities:
  agents/node: { launch: ${JSON.stringify(commands.node)} }
  agents/python: { launch: ${JSON.stringify(commands.python)} }
egress:
  openai: { url: "${url}", header: { Authorization: "Bearer ${secret("openai")}" }, ca: api.pem, private: true }
  anthropic: { url: "${url}", header: { X-Api-Key: "${secret("anthropic")}" }, ca: api.pem, private: true }
secrets:
  openai: { file: .env.local, key: OPENAI_API_KEY }
  anthropic: { file: .env.local, key: ANTHROPIC_API_KEY }
`,
    "agent.mjs": readFileSync(join(here, "agent.mjs"), "utf8"),
    "agent.py": readFileSync(join(here, "agent.py"), "utf8"),
    "api.pem": readFileSync(api.ca, "utf8"),
    ".env.local": `OPENAI_API_KEY=${KEYS.openai}\nANTHROPIC_API_KEY=${KEYS.anthropic}\n`,
    "policies/llm.yaml": `rules:
  - name: chat
    allow: { from: "agents/*", to: "egress/*", method: POST, path: [/v1/chat/completions, /v1/messages] }
`,
  });
  chmodSync(join(project, ".env.local"), 0o600);
  dev = await startDev(project);
});
afterAll(async () => {
  await dev?.stop();
  api?.close();
});

describe.each([
  ["node", "missing" in node],
  ["python", "missing" in python],
] as const)("the SDKs for %s", (language, missing) => {
  it.skipIf(missing)("ask and stream with a key that they do not have, and are told of a denial", async () => {
    const before = api.arrived.length;
    const { code, stdout, stderr } = await agentid(["run", language, "--", ...commands[language]], {
      cwd: project,
      env: {
        SDKS: "folder" in node ? node.folder : "",
        SDKS_PYTHON: "folder" in python ? python.folder : "",
        OPENAI_API_KEY: KEYS.openai,
        ANTHROPIC_API_KEY: KEYS.anthropic,
      },
    });
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const { said, environment } = JSON.parse(stdout) as { said: unknown; environment: Record<string, string> };
    expect(said).toEqual([
      ["openai", "hello yourself"],
      ["openai stream", ["hello ", "yourself"]],
      ["anthropic", "hello yourself"],
      ["anthropic stream", ["hello ", "yourself"]],
      ["denied", [403, "denied"]],
    ]);
    expect(JSON.stringify(environment)).not.toMatch(/sk-(ant-)?test/);
    expect(api.arrived.slice(before).map(({ url }) => url)).toEqual([
      ...["/v1/chat/completions", "/v1/chat/completions", "/v1/messages", "/v1/messages"],
    ]);
    expect(JSON.stringify(api.arrived.slice(before))).not.toContain("placeholder");
  });
});

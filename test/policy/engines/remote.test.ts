import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { expect, onTestFinished, test } from "vitest";
import { temporaryFolder } from "../../federation/trust-domain.js";
import { createWebAuthority } from "../../federation/web-certificates.js";
import { decisionsOf, http, loadProject, type TestedDecisions } from "./engine-project.js";

interface Asked {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** A real HTTP server that answers as the test says, at a port or a socket. */
async function serve(answer: RequestListener, socket?: string) {
  const asked: Asked[] = [];
  const connections = new Set<unknown>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      asked.push({ method, url, headers, body: Buffer.concat(chunks).toString() });
      answer(request, response);
    });
  });
  server.on("connection", (connection) => connections.add(connection));
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  onTestFinished(close);
  await new Promise<void>((resolve) => {
    if (socket === undefined) server.listen(0, "127.0.0.1", resolve);
    else server.listen(socket, resolve);
  });
  const url = socket === undefined ? `http://127.0.0.1:${(server.address() as AddressInfo).port}` : `unix:${socket}`;
  return { url, asked, connections, close };
}

function json(response: ServerResponse, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
}

const read = http("GET", "/v1/invoices/1017", { user: "alice" });

const opaAt = (url: string, more: object = {}): Promise<TestedDecisions> =>
  decisionsOf({ engines: [{ name: "central", opa: url, path: "finance/allow", timeout: "20s", ...more }] });

test("an OPA server is asked for its document, with the AuthZEN request as its input, over kept connections", async () => {
  const opa = await serve((_, response) => json(response, { result: true, decision_id: "x" }));
  const decisions = await opaAt(opa.url);
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  expect(opa.asked[0]).toMatchObject({ method: "POST", url: "/v1/data/finance/allow" });
  expect(JSON.parse(opa.asked[0]?.body ?? "")).toEqual({
    input: {
      subject: { type: "spiffe", id: "spiffe://shop.local/agents/billing", properties: {} },
      action: { name: "http:GET" },
      resource: {
        type: "http",
        id: "spiffe://shop.local/services/invoices",
        properties: { path: "/v1/invoices/1017" },
      },
      context: { query: {}, protocol: "http", user: { id: "alice", properties: {} } },
    },
  });
  for (let more = 0; more < 30; more += 1) await decisions.judge(read);
  expect(opa.connections.size).toBeLessThan(5);
});

test("a socket, a token, and obligations", async () => {
  const directory = mkdtempSync(join(tmpdir(), "agentid-opa-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const obligations = [{ id: "a", type: "approval" }];
  const opa = await serve(
    (_, response) => json(response, { result: { allow: true, obligations } }),
    join(directory, "opa.sock"),
  );
  const decisions = await decisionsOf({
    files: { token: "s3cret\n" },
    engines: [{ name: "central", opa: opa.url, path: "finance/allow", tokenFile: "token" }],
  });
  expect(await decisions.judge(read)).toMatchObject({ allowed: true, obligations });
  expect(opa.asked[0]?.headers.authorization).toBe("Bearer s3cret");
});

/** Only their deadline ends these: long enough for a busy machine to say yes before it. */
const hangs: readonly string[] = ["nothing at all", "an answer that drips"];

const answers: Record<string, RequestListener> = {
  '"true"': (_, response) => json(response, { result: "true" }),
  "1": (_, response) => json(response, { result: 1 }),
  "an undefined document": (_, response) => json(response, {}),
  "a list": (_, response) => json(response, [{ result: true }]),
  "an object with another member": (_, response) => json(response, { result: { allow: true, allowed: true } }),
  "an allow that is a text": (_, response) => json(response, { result: { allow: "true" } }),
  "an obligation without a type": (_, response) =>
    json(response, { result: { allow: true, obligations: [{ id: "a" }] } }),
  "status 500": (_, response) => response.writeHead(500, { "content-type": "application/json" }).end('{"result":true}'),
  "status 201": (_, response) => response.writeHead(201, { "content-type": "application/json" }).end('{"result":true}'),
  "a redirect": (_, response) => response.writeHead(302, { location: "/v1/data/yes" }).end('{"result":true}'),
  "two documents": (_, response) =>
    response.writeHead(200, { "content-type": "application/json" }).end('{"result":true}{}'),
  "a result that is given twice": (_, response) =>
    response.writeHead(200, { "content-type": "application/json" }).end('{"result":false,"result":true}'),
  "an answer behind a byte order mark": (_, response) =>
    response.writeHead(200, { "content-type": "application/json" }).end('\ufeff{"result":true}'),
  "a compressed answer": (_, response) =>
    response
      .writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
      .end(gzipSync('{"result":true}')),
  garbage: (_, response) => response.writeHead(200, { "content-type": "application/json" }).end("\x00\xff"),
  "no JSON by its type": (_, response) =>
    response.writeHead(200, { "content-type": "text/plain" }).end('{"result":true}'),
  "more than anybody answers": (_, response) => json(response, { result: true, more: "x".repeat(300_000) }),
  "a connection that is cut": (_, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": "100" }).write('{"result":true}');
    setImmediate(() => response.destroy());
  },
  "nothing at all": () => undefined,
  "an answer that drips": (_, response) => {
    response.writeHead(200, { "content-type": "application/json" }).write('{"result":');
  },
};

test.each(Object.entries(answers))("an OPA server that answers with %s denies", async (name, answer) => {
  let strange = false;
  const opa = await serve((request, response) =>
    strange ? answer(request, response) : json(response, { result: true }),
  );
  const decisions = await opaAt(opa.url, { timeout: hangs.includes(name) ? "3s" : "20s" });
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  strange = true;
  const decision = await decisions.judge(read);
  expect(decision).toMatchObject({ allowed: false, engine: "central", conditional: true });
  expect(decision.reason).toMatch(/^central /);
  strange = false;
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
});

test("an OPA server that is gone denies", async () => {
  const opa = await serve((_, response) => json(response, { result: true }));
  const decisions = await opaAt(opa.url);
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  opa.close();
  expect(await decisions.judge(read)).toMatchObject({
    allowed: false,
    reason: expect.stringContaining("cannot be asked"),
  });
});

/** An AuthZEN decision point whose answers a test can change. */
async function pdp(timeout = "20s") {
  const now: { metadata?: object; evaluation?: RequestListener } = {};
  const served = await serve((request, response) => {
    if (request.method === "GET") {
      const metadata = {
        policy_decision_point: served.url,
        access_evaluation_endpoint: `${served.url}/access/v1/evaluation`,
      };
      json(response, { ...metadata, ...now.metadata });
    } else if (now.evaluation === undefined) {
      const id = request.headers["x-request-id"];
      json(response, { decision: true }, typeof id === "string" ? { "x-request-id": id } : {});
    } else now.evaluation(request, response);
  });
  const decisions = await decisionsOf({ engines: [{ name: "pdp", authzen: served.url, timeout }] });
  return { ...served, now, decisions };
}

test("an AuthZEN decision point is found by its metadata and asked with a request id", async () => {
  const { asked, decisions } = await pdp();
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  expect(asked.map(({ method, url }) => `${method} ${url}`)).toEqual([
    "GET /.well-known/authzen-configuration",
    "POST /access/v1/evaluation",
    "POST /access/v1/evaluation",
  ]);
  const ids = asked.slice(1).map(({ headers }) => headers["x-request-id"]);
  expect(ids[0]).toMatch(/^[0-9a-f-]{36}$/);
  expect(ids[1]).not.toBe(ids[0]);
  expect(JSON.parse(asked[1]?.body ?? "")).toMatchObject({ subject: { type: "spiffe" }, action: { name: "http:GET" } });
});

test("the metadata of a tenant lie between host and path", async () => {
  const served = await serve((request, response) => {
    const identifier = `${served.url}/acme`;
    if (request.method === "POST") json(response, { decision: true });
    else
      json(response, { policy_decision_point: identifier, access_evaluation_endpoint: `${identifier}/evaluate?v=1` });
  });
  const decisions = await decisionsOf({ engines: [{ name: "pdp", authzen: `${served.url}/acme` }] });
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  expect(served.asked.map(({ url }) => url)).toEqual(["/.well-known/authzen-configuration/acme", "/acme/evaluate?v=1"]);
});

test.each([
  ["of another decision point", { policy_decision_point: "http://127.0.0.1:1" }, "says in its metadata that it is"],
  ["with a slash more", (url: string) => ({ policy_decision_point: `${url}/` }), "says in its metadata that it is"],
  ["without an endpoint", { access_evaluation_endpoint: undefined }, "names no access_evaluation_endpoint"],
  ["with an endpoint elsewhere", { access_evaluation_endpoint: "http://127.0.0.1:1/evaluate" }, "another server"],
])("metadata %s are not used", async (_, metadata, reason) => {
  const { url, now, asked, decisions } = await pdp();
  now.metadata = typeof metadata === "function" ? metadata(url) : metadata;
  const decision = await decisions.judge(read);
  expect(decision).toMatchObject({ allowed: false, engine: "pdp" });
  expect(decision.reason).toContain(reason);
  expect(asked.some(({ method }) => method === "POST")).toBe(false);
  // What was wrong once is looked at again.
  now.metadata = {};
  expect(await decisions.judge(read)).toMatchObject({ allowed: true });
});

const evaluations: Record<string, RequestListener> = {
  "a decision that is a text": (_, response) => json(response, { decision: "true" }),
  "a decision that is a number": (_, response) => json(response, { decision: 1 }),
  "no decision": (_, response) => json(response, {}),
  "a decision that is given twice": (_, response) =>
    response.writeHead(200, { "content-type": "application/json" }).end('{"decision":false,"decision":true}'),
  "a decision that other parsers read otherwise": (_, response) => json(response, { decision: true, Decision: false }),
  "another answer for each half of its request id": (_, response) =>
    response
      .writeHead(
        200,
        [
          ["content-type", "application/json"],
          ["x-request-id", "a"],
          ["x-request-id", "b"],
        ].flat(),
      )
      .end('{"decision":true}'),
  "a denial": (_, response) => json(response, { decision: false, context: { reason: "because" } }),
  "somebody else's request id": (_, response) => json(response, { decision: true }, { "x-request-id": "other" }),
  "an obligation that cannot be read": (_, response) =>
    json(response, { decision: true, context: { obligations: [{ type: "x" }] } }),
  "obligations that are no list": (_, response) => json(response, { decision: true, context: { obligations: {} } }),
  "a context that is a text": (_, response) => json(response, { decision: true, context: "x" }),
  "status 401": (_, response) =>
    response.writeHead(401, { "content-type": "application/json" }).end('{"decision":true}'),
  "status 403": (_, response) =>
    response.writeHead(403, { "content-type": "application/json" }).end('{"decision":true}'),
  "status 500": (_, response) =>
    response.writeHead(500, { "content-type": "application/json" }).end('{"decision":true}'),
  "nothing at all": () => undefined,
};

test.each(Object.entries(evaluations))(
  "an AuthZEN decision point that answers with %s denies",
  async (_, evaluation) => {
    const { now, decisions } = await pdp();
    expect(await decisions.judge(read)).toMatchObject({ allowed: true });
    now.evaluation = evaluation;
    expect(await decisions.judge(read)).toMatchObject({
      allowed: false,
      engine: "pdp",
      reason: expect.stringMatching(/^pdp /),
    });
  },
);

test("obligations of an AuthZEN decision point go to whoever enforces", async () => {
  const obligations = [{ id: "a", type: "step-up", properties: { acr_value: "high" } }];
  const { now, decisions } = await pdp();
  now.evaluation = (_, response) => json(response, { decision: true, context: { obligations } });
  expect(await decisions.judge(read)).toMatchObject({ allowed: true, obligations });
});

test("a file that holds no token is refused when it is loaded", async () => {
  const { loaded, problems } = await loadProject({
    files: { token: "two words" },
    engines: [{ name: "pdp", authzen: "https://pdp.example", tokenFile: "token" }],
  });
  expect(loaded).toBeUndefined();
  expect(problems.join()).toContain("token holds no token");
});

test("what another decision point says is shown, and only so much of it that it can be shown", async () => {
  const opa = await serve((_, response) =>
    json(response, { result: { allow: true, reasons: ["\u001b[2Jfine", "x".repeat(100_000)] } }),
  );
  const decisions = await decisionsOf({
    engines: [{ name: "central", opa: opa.url, path: "finance/allow", timeout: "20s" }],
    rulesScope: ["payments"],
  });
  const { allowed, reason } = await decisions.judge(read);
  expect(allowed).toBe(true);
  expect(reason).toMatch(/^permitted by central: fine; x{50,}/);
  expect(reason.length).toBeLessThanOrEqual(2_000);
  const { now, decisions: others } = await pdp();
  now.evaluation = (_, response) =>
    json(response, { decision: false, context: { reason: `no\u202e${"x".repeat(100_000)}` } });
  expect((await others.judge(read)).reason).toMatch(/^pdp does not permit it: nox{50,2000}…$/);
});

test("over https every connection verifies the server anew: no TLS session is resumed", async () => {
  const web = await createWebAuthority();
  const files = await web.issue(temporaryFolder(), ["localhost"]);
  const resumed: boolean[] = [];
  const server = createTlsServer(
    { cert: readFileSync(files.certificate), key: readFileSync(files.key) },
    (_, response) => json(response, { result: true }, { connection: "close" }),
  );
  server.on("secureConnection", (socket) => resumed.push(socket.isSessionReused()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const url = `https://localhost:${(server.address() as AddressInfo).port}`;
  const decisions = await decisionsOf({
    files: { "ca.pem": web.pem },
    engines: [{ name: "central", opa: url, path: "finance/allow", timeout: "20s", ca: "ca.pem" }],
  });
  for (let asked = 0; asked < 4; asked += 1) expect(await decisions.judge(read)).toMatchObject({ allowed: true });
  expect(resumed).toEqual([false, false, false, false]);
  const strangers = await decisionsOf({
    engines: [{ name: "central", opa: url, path: "finance/allow", timeout: "20s" }],
  });
  expect(await strangers.judge(read)).toMatchObject({ allowed: false });
});

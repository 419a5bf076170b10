/** Decisions of each engine, beside bare calls of its library: processor time, the best of several rounds. */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { loadPolicy } from "@open-policy-agent/opa-wasm";
import { parseConfig } from "../../src/config/load.js";
import { systemClock } from "../../src/platform/clock.js";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { httpAccessRequest, mcpAccessRequest } from "../../src/policy/access-request-of.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import { cedarLibrary } from "../../src/policy/engines/cedar-library.js";
import { loadEngines, opened } from "../../src/policy/engines/load-engines.js";
import { policyNamesOf } from "../../src/policy/policy-names.js";
import { policySetOf } from "../../src/policy/policy-set.js";

const ROUNDS = 6;
const id = (name: string) => `spiffe://shop.local/${name}`;
const directory = mkdtempSync(join(tmpdir(), "agentid-bench-"));
mkdirSync(join(directory, "policies"));
const call = (tool: string, more: Record<string, unknown> = {}): AccessRequest =>
  mcpAccessRequest({
    caller: id("agents/billing"),
    service: id("mcp/payments"),
    method: "tools/call",
    tool,
    args: { amount: 900, ...more },
  });
const read: AccessRequest = {
  ...httpAccessRequest({
    caller: id("agents/billing"),
    service: id("services/invoices"),
    method: "GET",
    path: "/v1/invoices/1017",
  }),
  context: { user: { id: "alice", properties: { department: "finance" } } },
};

/** Milliseconds of this process's processors for each call, the best round. */
async function cost(per: number, run: () => unknown): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = process.cpuUsage();
    for (let index = 0; index < per; index += 1) {
      const answer = run();
      if (answer instanceof Promise) await answer;
    }
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, (user + system) / per);
  }
  return best;
}

function show(what: string, micros: number, bare?: number): void {
  const ratio = bare === undefined ? "" : `  ${(micros / bare).toFixed(2)} × bare`;
  process.stdout.write(
    `${what.padEnd(64)} ${micros.toFixed(1).padStart(8)} µs ${Math.round(1e6 / micros)
      .toString()
      .padStart(8)}/s${ratio}\n`,
  );
}

async function pointWith(engines: readonly object[]) {
  const config = parseConfig(
    JSON.stringify({
      trustDomain: "shop.local",
      services: { payments: { mcp: { unix: "p.sock" } }, invoices: { http: { unix: "i.sock" } } },
      // Nothing but the engine judges.
      policy: { engines, rules: { scope: [{ type: "nothing" }] } },
    }),
    { projectDirectory: directory, file: join(directory, "agentid.yaml"), digest: "" },
  );
  const { set } = policySetOf([], policyNamesOf(config));
  if (set === undefined) throw new Error("no rules");
  const options = { projectDirectory: directory, cacheDirectory: undefined, environment: process.env };
  const { loaded, problems } = await loadEngines(config.policy, set, options);
  if (loaded === undefined) throw new Error(problems.map(({ message }) => message).join("\n"));
  return createDecisionPoint(set, { clock: systemClock, random: randomBytes, ...opened(loaded, systemClock) });
}

function policiesOf(count: number): string[] {
  return Array.from(
    { length: count },
    (_, i) =>
      `permit(principal == Agent::"${id(i % 2 === 0 ? "agents/billing" : "agents/planner")}", action == Action::"tools/call", resource == Tool::"payments/tool${i}") when { context.args.amount <= 1000 };`,
  );
}

const cedar = await cedarLibrary();
const entities = [
  {
    uid: { type: "Agent", id: id("agents/billing") },
    attrs: { name: "agents/billing", trustDomain: "shop.local" },
    parents: [],
  },
  { uid: { type: "Service", id: "payments" }, attrs: { name: "payments" }, parents: [] },
  {
    uid: { type: "Tool", id: "payments/tool2" },
    attrs: { name: "payments/tool2", tool: "tool2" },
    parents: [{ type: "Service", id: "payments" }],
  },
];
let few = 0;
for (const count of [10, 1_000]) {
  const texts = policiesOf(count);
  writeFileSync(join(directory, "policies", "bench.cedar"), texts.join("\n"));
  const point = await pointWith([{ name: "corporate", cedar: "policies/bench.cedar" }]);
  const request = call("tool2");
  if (!(await point.decide(request)).allowed) throw new Error("not permitted");
  cedar.preparsePolicySet("bare", {
    staticPolicies: Object.fromEntries(texts.map((text, index) => [`p${index}`, text])),
  });
  const question = {
    principal: { type: "Agent", id: id("agents/billing") },
    action: { type: "Action", id: "tools/call" },
    resource: { type: "Tool", id: "payments/tool2" },
    context: { args: { amount: 900 } },
    preparsedPolicySetId: "bare",
    entities,
  };
  const bare = await cost(count === 10 ? 3_000 : 200, () => cedar.statefulIsAuthorized(question));
  const ours = await cost(3_000, () => point.decide(request));
  show(`Cedar, ${count} policies, bare library over all of them`, bare);
  show(`Cedar, ${count} policies, our engine`, ours, bare);
  if (count === 10) few = ours;
  else process.stdout.write(`  1,000 policies cost ${(ours / few).toFixed(2)} × 10\n`);
}

// The longest that a request can keep the event loop: as large as is judged at once, patterns that try every place.
writeFileSync(
  join(directory, "policies", "bench.cedar"),
  `permit(principal, action, resource) when { context.args.text like "*a*a*a*a*a*a*a*a*b" };`,
);
const worst = await pointWith([{ name: "corporate", cedar: "policies/bench.cedar" }]);
const hostile = {
  "one text, a pattern of eight stars": call("t", { text: "a".repeat(64_000) }),
  "3,500 numbers": call("t", { text: "", list: Array.from({ length: 3_500 }, (_, i) => i) }),
  "850 members": call("t", {
    text: "",
    map: Object.fromEntries(Array.from({ length: 850 }, (_, i) => [`k${i}`, i])),
  }),
};
for (const [what, request] of Object.entries(hostile)) {
  const reason = (await worst.decide(request)).reason;
  if (reason.includes("too large")) throw new Error(`${what}: beyond the bound`);
  show(`Cedar, as large as is judged at once: ${what}`, await cost(5, () => worst.decide(request)));
}

const tar = gunzipSync(readFileSync(new URL("../policy/engines/finance/finance.tar.gz", import.meta.url)));
writeFileSync(
  join(directory, "policies", "finance.tar.gz"),
  readFileSync(new URL("../policy/engines/finance/finance.tar.gz", import.meta.url)),
);
const start = tar.indexOf("\0asm");
const wasm = tar.subarray(
  start,
  start +
    Number.parseInt(
      tar
        .subarray(tar.lastIndexOf("/policy.wasm", start) + 124)
        .subarray(0, 11)
        .toString(),
      8,
    ),
);
const weekday = (): string => "Wednesday";
const bareRego = await loadPolicy(
  wasm,
  { initial: 5 },
  { "time.now_ns": () => 0, "time.weekday": weekday, "time.clock": () => [12, 0, 0] },
);
const regoBare = await cost(3_000, () => bareRego.evaluate(read, "finance/allow"));
const rego = await pointWith([{ name: "finance", bundle: "policies/finance.tar.gz", entrypoint: "finance/allow" }]);
await rego.decide(read);
show("Rego, bare library on this thread", regoBare);
show("Rego, our engine, one after another on its thread", await cost(2_000, () => rego.decide(read)), regoBare);
const together = 64;
show(
  `Rego, our engine, ${together} at once`,
  (await cost(50, () => Promise.all(Array.from({ length: together }, () => rego.decide(read))))) / together,
  regoBare,
);

const server = createServer((request, response) => {
  request.resume();
  request.on("end", () => response.writeHead(200, { "content-type": "application/json" }).end('{"result":true}'));
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const { Pool } = await import("undici");
const pool = new Pool(url, { connections: 16 });
const post = async (): Promise<unknown> => {
  const { body } = await pool.request({
    method: "POST",
    path: "/v1/data/x",
    body: JSON.stringify({ input: read }),
    headers: { "content-type": "application/json" },
  });
  return await body.json();
};
const bareHttp = await cost(1_000, post);
const opa = await pointWith([{ name: "central", opa: url, path: "x" }]);
show("OPA over HTTP, bare undici, server in this process", bareHttp);
show("OPA over HTTP, our engine, server in this process", await cost(1_000, () => opa.decide(read)), bareHttp);
await pool.close();
server.closeAllConnections();
server.close();
rmSync(directory, { recursive: true, force: true });

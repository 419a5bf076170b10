import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Answer, certify, exchange, items, type Outcome, type Target } from "./certification.js";
import {
  decidesBy,
  fixtureActions,
  fixtureEntities,
  fixturePermits,
  type RunningAuthzen,
  runAuthzen,
} from "./running-authzen.js";

let running: RunningAuthzen;

beforeAll(async () => {
  running = await runAuthzen({
    change: () => ({
      decisionPoint: () => decisionPoint,
      entities: () => fixtureEntities,
      actionsOn: (type) => (type === "record" ? fixtureActions : []),
      obligations: () => ["approval"],
    }),
  });
});
const decisionPoint = decidesBy(fixturePermits);

afterAll(() => running.close());

function failures(outcomes: readonly Outcome[]): string[] {
  return outcomes.filter(({ failure }) => failure !== undefined).map(({ id, failure }) => `${id}: ${failure}`);
}

describe("the certification scenario, all levels", () => {
  it("holds over TLS with the trust domain's certificate", async () => {
    const outcomes = await certify(running.tlsAs("agents/gateway"));
    expect(failures(outcomes)).toEqual([]);
    expect(outcomes).toHaveLength(items.length);
  });

  it("holds on the Unix socket", async () => {
    expect(failures(await certify(running.unix))).toEqual([]);
  });
});

type Fault = (answer: Answer, asked: { path: string; body: string; headers: Record<string, unknown> }) => Answer;

const inBody =
  (change: (body: Record<string, unknown>) => Record<string, unknown>) =>
  (answer: Answer): Answer =>
    answer.status === 200 ? { ...answer, text: JSON.stringify(change(JSON.parse(answer.text))) } : answer;

const matches = (pattern: RegExp) => items.filter(({ id }) => pattern.test(id)).map(({ id }) => id);
const ofLevels = (...levels: string[]) => items.filter(({ level }) => levels.includes(level)).map(({ id }) => id);

/** One thing wrong with a server, and the items that must say so: these and no others. */
const faults: readonly { what: string; fault: Fault; fails: readonly string[] }[] = [
  { what: "nothing", fault: (answer) => answer, fails: [] },
  {
    what: "decision as a string",
    fault: inBody((body) => ("decision" in body ? { ...body, decision: String(body.decision) } : body)),
    fails: [...matches(/^2-2|^2-3|^2-5-2|^2-6/), ...matches(/^3-4-[23]/)],
  },
  {
    what: "decision as a number in a batch",
    fault: inBody(({ evaluations, ...body }) =>
      Array.isArray(evaluations)
        ? { ...body, evaluations: evaluations.map((one) => ({ ...one, decision: one.decision ? 1 : 0 })) }
        : { ...body, ...(evaluations !== undefined && { evaluations }) },
    ),
    fails: [
      ...matches(/^3-2/),
      ...matches(/^3-3-1/),
      "3-4-1 an item that fails is denied",
      ...matches(/^(execute|deny|permit)_/),
    ],
  },
  {
    what: "another content type",
    fault: (answer) => ({ ...answer, headers: { ...answer.headers, "content-type": "text/html" } }),
    fails: items.filter(({ id }) => !/^2-4|malformed|^2-5-1|^4-7/.test(id)).map(({ id }) => id),
  },
  {
    what: "X-Request-ID is dropped",
    fault: ({ headers: { "x-request-id": _, ...headers }, ...answer }) => ({ ...answer, headers }),
    fails: matches(/^2-5-1/),
  },
  {
    what: "unknown fields are refused",
    fault: (answer, { body }) => (body.includes("futureField") ? { ...answer, status: 400 } : answer),
    fails: matches(/^2-2-9/),
  },
  {
    what: "415 for another content type",
    fault: (answer, { headers }) => (headers["content-type"] === "text/plain" ? { ...answer, status: 415 } : answer),
    fails: ["2-4-3 another content type"],
  },
  {
    what: "a denial is 403",
    fault: (answer) =>
      answer.status === 200 && answer.text.startsWith('{"decision":false') ? { ...answer, status: 403 } : answer,
    fails: [...matches(/rule [458]:/), ...matches(/^2-6/)],
  },
  {
    what: "everything is permitted",
    fault: inBody((body) => ("decision" in body ? { ...body, decision: true } : body)),
    fails: [...matches(/rule [458]:/), ...matches(/^2-6/)],
  },
  {
    what: "a batch in reverse",
    fault: inBody((body) =>
      Array.isArray(body.evaluations) ? { ...body, evaluations: [...body.evaluations].reverse() } : body,
    ),
    fails: [
      ...matches(/^3-2-2|^3-2-3|^3-2-4|^3-2-5/),
      "3-2-7 names of the default complete an item",
      "3-4-1 an item that fails is denied",
      ...matches(/^(execute|deny|permit)_/),
    ],
  },
  {
    what: "a decision beside the evaluations",
    fault: inBody((body) => ("evaluations" in body ? { ...body, decision: true } : body)),
    fails: matches(/^3-3-4/),
  },
  {
    what: "results that end early",
    fault: inBody((body) => (Array.isArray(body.results) ? { ...body, results: body.results.slice(0, -1) } : body)),
    fails: [...matches(/S[13456] /), ...matches(/^4-2-3|^4-5/)],
  },
  {
    what: "the first result only, and no other page",
    fault: inBody((body) =>
      "page" in body ? { ...body, page: { next_token: "" }, results: (body.results as unknown[]).slice(0, 1) } : body,
    ),
    fails: matches(/S[136] |^4-2-3|^4-5/),
  },
  {
    what: "an unknown type is an error",
    fault: (answer, { body }) => (body.includes("spaceship") ? { ...answer, status: 400 } : answer),
    fails: matches(/^4-6-2/),
  },
  {
    what: "metadata of somebody else",
    fault: inBody((body) =>
      "policy_decision_point" in body ? { ...body, policy_decision_point: "https://pdp.example.com" } : body,
    ),
    fails: ["6-3 policy_decision_point is the base"],
  },
  {
    what: "metadata with empty parameters",
    fault: inBody((body) => ("policy_decision_point" in body ? { ...body, signed_metadata: "" } : body)),
    fails: ["parameters without a value are omitted"],
  },
  {
    what: "no metadata",
    fault: (answer, { path }) => (path.startsWith("/.well-known") ? { ...answer, status: 404 } : answer),
    fails: ofLevels("Discovery"),
  },
];

describe("the runner can fail", () => {
  it.each(faults)("a server with this wrong: $what", async ({ fault, fails }) => {
    const broken = await breakServer(running.unix, fault);
    try {
      const outcomes = await certify(broken.target);
      const failed = outcomes.filter(({ failure }) => failure !== undefined).map(({ id }) => id);
      expect(failed.toSorted()).toEqual([...new Set(fails)].toSorted());
    } finally {
      broken.close();
    }
  });
});

/** A real server before a real one, with one thing wrong. */
async function breakServer(real: Target, fault: Fault) {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.once("end", async () => {
      const body = Buffer.concat(chunks).toString("utf8");
      const path = request.url ?? "";
      const headers = Object.fromEntries(
        Object.entries(request.headers).filter(([name]) => ["content-type", "x-request-id"].includes(name)),
      ) as Record<string, string>;
      const answer = await exchange(real, {
        method: request.method ?? "",
        path,
        headers,
        ...(request.method === "POST" && { body }),
      });
      // The metadata names the one who serves it.
      const own = {
        ...answer,
        text: answer.text.replaceAll("http://localhost/", `${base()}/`).replaceAll('"http://localhost"', `"${base()}"`),
      };
      const { status, text, headers: sent } = fault(own, { path, body, headers: request.headers });
      const kept = Object.fromEntries(
        Object.entries(sent).filter(([name]) => ["content-type", "x-request-id"].includes(name)),
      );
      response.writeHead(status, kept as Record<string, string>).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const base = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { target: { base: base() }, close: () => server.close() };
}

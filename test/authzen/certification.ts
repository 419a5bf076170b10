import { request as httpRequest, type IncomingHttpHeaders, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";

/**
 * The certification scenario of AuthZEN Authorization API 1.0 (openid/authzen, certification/authorization-api-1_0-scenario.md) as a black box: it knows an
 * address and nothing else. Judged are the status, the content type, the exact type of `decision`, and the decisions that the scenario fixes.
 */

/** Where a decision point is: a URL with what TLS needs, or a Unix socket. */
export interface Target {
  /** `https://127.0.0.1:8543`; requests to `socketPath` say it as their Host. */
  readonly base: string;
  readonly socketPath?: string;
  readonly tls?: { readonly ca: string; readonly cert?: string; readonly key?: string };
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export type Level =
  | "Basic Core"
  | "Basic Properties"
  | "Batch Core"
  | "Batch Properties"
  | "Search Core"
  | "Search Properties"
  | "Discovery";

export interface Item {
  /** The scenario's own number, and a name for each case below it: `2-4-1 subject`. */
  readonly id: string;
  readonly level: Level;
  /** Throws what does not hold. */
  readonly check: (pdp: Pdp) => Promise<void>;
}

export interface Outcome {
  readonly id: string;
  readonly level: Level;
  readonly failure: string | undefined;
}

type Body = Record<string, unknown>;

/** Runs every item, in order; one that fails stops no other. */
export async function certify(target: Target, levels?: readonly Level[]): Promise<readonly Outcome[]> {
  const pdp = await connect(target);
  const outcomes: Outcome[] = [];
  for (const { id, level, check } of items) {
    if (levels !== undefined && !levels.includes(level)) continue;
    let failure: string | undefined;
    try {
      await check(pdp);
    } catch (thrown) {
      failure = thrown instanceof Error ? thrown.message : String(thrown);
    }
    outcomes.push({ id, level, failure });
  }
  return outcomes;
}

export interface Pdp {
  readonly target: Target;
  /** Endpoints as the metadata has them, or the default paths where there is none. */
  readonly paths: Readonly<Record<"evaluation" | "evaluations" | "subject" | "resource" | "action", string>>;
  send(options: { method: string; path: string; headers?: Record<string, string>; body?: string }): Promise<Answer>;
}

const DEFAULT_PATHS = {
  evaluation: "/access/v1/evaluation",
  evaluations: "/access/v1/evaluations",
  subject: "/access/v1/search/subject",
  resource: "/access/v1/search/resource",
  action: "/access/v1/search/action",
} as const;

const METADATA_KEYS = {
  evaluation: "access_evaluation_endpoint",
  evaluations: "access_evaluations_endpoint",
  subject: "search_subject_endpoint",
  resource: "search_resource_endpoint",
  action: "search_action_endpoint",
} as const;

const WELL_KNOWN = "/.well-known/authzen-configuration";

/** Scenario 6-6: with a 404 for the metadata, the default paths hold. */
async function connect(target: Target): Promise<Pdp> {
  const send: Pdp["send"] = (options) => exchange(target, options);
  const metadata = await send({ method: "GET", path: WELL_KNOWN });
  if (metadata.status !== 200) return { target, paths: DEFAULT_PATHS, send };
  let document: Body = {};
  try {
    document = JSON.parse(metadata.text) as Body;
  } catch {
    // Discovery's own items say so.
  }
  const paths = Object.fromEntries(
    Object.entries(METADATA_KEYS).map(([name, key]) => {
      const url = document[key];
      return [name, pathOf(url) ?? DEFAULT_PATHS[name as keyof typeof DEFAULT_PATHS]];
    }),
  );
  return { target, paths: paths as unknown as Pdp["paths"], send };
}

function pathOf(url: unknown): string | undefined {
  try {
    return new URL(String(url)).pathname;
  } catch {
    return undefined;
  }
}

export function exchange(
  { base, socketPath, tls }: Target,
  {
    method,
    path,
    headers = {},
    body,
  }: { method: string; path: string; headers?: Record<string, string>; body?: string },
): Promise<Answer> {
  const url = new URL(base);
  const options: RequestOptions = {
    method,
    path,
    headers: { host: url.host, ...headers, ...(body !== undefined && { "content-length": Buffer.byteLength(body) }) },
    ...(socketPath === undefined ? { host: url.hostname.replace(/^\[|\]$/g, ""), port: url.port } : { socketPath }),
    agent: false,
  };
  return new Promise((resolve, reject) => {
    const request =
      tls === undefined
        ? httpRequest(options)
        : httpsRequest({ ...options, ...tls, servername: "localhost", minVersion: "TLSv1.3" });
    request.once("error", reject);
    request.once("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: Buffer.concat(chunks).toString("utf8"),
        }),
      );
    });
    request.end(body);
  });
}

// --- what is asked -------------------------------------------------------------------------------------------------------------------------

const alice = { type: "user", id: "alice" };
const bob = { type: "user", id: "bob" };
const admin = { ...bob, properties: { role: "admin" } };
const record1 = { type: "record", id: "record-1" };
const record2 = { type: "record", id: "record-2" };
const archived = { ...record2, properties: { status: "archived" } };
const act = (name: string, properties?: Body) => ({ name, ...(properties && { properties }) });

const readIt = { subject: alice, action: act("read"), resource: record1 };

function must(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new Error(otherwise);
}

const JSON_TYPE = { "content-type": "application/json" };

async function post(pdp: Pdp, path: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  return pdp.send({ method: "POST", path, headers: { ...JSON_TYPE, ...headers }, body: JSON.stringify(body) });
}

/** A success: 200, `application/json`, an object. */
function successOf({ status, headers, text }: Answer): Body {
  must(status === 200, `status ${status} instead of 200`);
  must(isJsonType(headers["content-type"]), `content type ${headers["content-type"]} instead of application/json`);
  const body: unknown = JSON.parse(text);
  must(isObject(body), "the answer is no object");
  return body;
}

function isJsonType(type: string | undefined): boolean {
  return /^application\/json\s*(;.*)?$/i.test(type ?? "");
}

function isObject(value: unknown): value is Body {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function decisionIn(value: unknown): boolean {
  must(isObject(value), "an evaluation is no object");
  const { decision, context } = value;
  must(typeof decision === "boolean", `decision is ${JSON.stringify(decision)}, not a boolean`);
  must(context === undefined || isObject(context), "context is no object");
  return decision;
}

const evaluation =
  (body: unknown, expected: boolean | undefined, headers?: Record<string, string>) => async (pdp: Pdp) => {
    const decision = decisionIn(successOf(await post(pdp, pdp.paths.evaluation, body, headers)));
    must(expected === undefined || decision === expected, `decision ${decision} instead of ${expected}`);
  };

const refused = (api: keyof Pdp["paths"], body: unknown) => async (pdp: Pdp) => {
  const { status } = await post(pdp, pdp.paths[api], body);
  must(status === 400, `status ${status} instead of 400`);
};

const raw = (headers: Record<string, string>, body: string) => async (pdp: Pdp) => {
  const { status } = await pdp.send({ method: "POST", path: pdp.paths.evaluation, headers, body });
  must(status === 400, `status ${status} instead of 400`);
};

async function batch(pdp: Pdp, body: Body): Promise<readonly unknown[]> {
  const { evaluations } = successOf(await post(pdp, pdp.paths.evaluations, body));
  must(Array.isArray(evaluations), "evaluations is no array");
  return evaluations;
}

/** `undefined` expects a boolean of either value. */
const evaluations = (body: Body, expected: readonly (boolean | undefined)[]) => async (pdp: Pdp) => {
  const answers = await batch(pdp, body);
  must(answers.length === expected.length, `${answers.length} answers instead of ${expected.length}`);
  const decisions = answers.map(decisionIn);
  for (const [index, decision] of decisions.entries()) {
    const wanted = expected[index];
    must(wanted === undefined || decision === wanted, `evaluation ${index}: decision ${decision} instead of ${wanted}`);
  }
};

async function found(pdp: Pdp, kind: "subject" | "resource" | "action", body: Body): Promise<readonly Body[]> {
  const answer = successOf(await post(pdp, pdp.paths[kind], body));
  const { results, page } = answer;
  must(Array.isArray(results), "results is no array");
  must(page === undefined || isObject(page), "page is no object");
  must(page?.next_token === undefined || typeof page.next_token === "string", "page.next_token is no string");
  const member = kind === "action" ? undefined : (body[kind] as Body).type;
  for (const result of results as unknown[]) {
    must(isObject(result), "a result is no object");
    if (kind === "action") must(typeof result.name === "string", "a result has no name");
    else {
      must(typeof result.id === "string", "a result has no id");
      must(
        result.type === member,
        `a result of type ${JSON.stringify(result.type)} instead of ${JSON.stringify(member)}`,
      );
    }
  }
  return results as Body[];
}

const searchFinds =
  (kind: "subject" | "resource" | "action", body: Body, names: readonly string[]) => async (pdp: Pdp) => {
    const results = await found(pdp, kind, body);
    const key = kind === "action" ? "name" : "id";
    for (const name of names)
      must(
        results.some((one) => one[key] === name),
        `${name} is not among the results`,
      );
  };

const searchIsEmpty = (kind: "subject" | "resource" | "action", body: Body) => async (pdp: Pdp) => {
  const results = await found(pdp, kind, body);
  must(results.length === 0, `${results.length} results instead of none`);
};

const without = (body: Body, member: string): Body =>
  Object.fromEntries(Object.entries(body).filter(([key]) => key !== member));

const subjectSearch = { subject: { type: "user" }, action: act("read"), resource: record1 };

async function metadata(pdp: Pdp): Promise<Body> {
  return successOf(await pdp.send({ method: "GET", path: WELL_KNOWN }));
}

/** On a Unix socket there is no https: the identifier is then that of the target. */
function isEndpoint(value: unknown, base: string): boolean {
  if (typeof value !== "string") return false;
  const scheme = base.startsWith("https:") ? "https:" : "http:";
  try {
    return new URL(value).protocol === scheme;
  } catch {
    return false;
  }
}

// --- the items -----------------------------------------------------------------------------------------------------------------------------

const basic = (id: string, check: Item["check"]): Item => ({ id, level: "Basic Core", check });
const basicProperties = (id: string, check: Item["check"]): Item => ({ id, level: "Basic Properties", check });
const batched = (id: string, check: Item["check"]): Item => ({ id, level: "Batch Core", check });
const batchedProperties = (id: string, check: Item["check"]): Item => ({ id, level: "Batch Properties", check });
const searched = (id: string, check: Item["check"]): Item => ({ id, level: "Search Core", check });
const searchedProperties = (id: string, check: Item["check"]): Item => ({ id, level: "Search Properties", check });
const discovery = (id: string, check: Item["check"]): Item => ({ id, level: "Discovery", check });

const defaultsAndItems = {
  subject: alice,
  action: act("read"),
  evaluations: [{ resource: record1 }, { resource: record2 }],
};

export const items: readonly Item[] = [
  basic("2-2-1 rule 1: alice reads record-1", evaluation(readIt, true)),
  basic("2-2-1 rule 2: alice writes record-1", evaluation({ ...readIt, action: act("write") }, true)),
  basic("2-2-1 rule 3: bob reads record-1", evaluation({ ...readIt, subject: bob }, true)),
  basic(
    "2-2-2 rule 4: bob writes record-1",
    evaluation({ subject: bob, action: act("write"), resource: record1 }, false),
  ),
  basic(
    "2-2-3 with context",
    evaluation({ ...readIt, context: { time: "2025-06-27T18:03-07:00", ip: "192.168.1.1" } }, true),
  ),
  basicProperties(
    "2-2-4 rule 5: alice writes what is archived",
    evaluation({ subject: alice, action: act("write"), resource: archived }, false),
  ),
  basicProperties(
    "2-2-5 rule 6: an admin writes what is archived",
    evaluation({ subject: admin, action: act("write"), resource: archived }, true),
  ),
  basicProperties(
    "2-2-6 rule 7: a soft delete",
    evaluation({ ...readIt, action: act("delete", { soft: true }) }, true),
  ),
  basicProperties(
    "2-2-7 rule 8: a hard delete",
    evaluation({ ...readIt, action: act("delete", { soft: false }) }, false),
  ),
  basic(
    "2-2-8 additional properties",
    evaluation(
      {
        subject: { ...alice, properties: { department: "Sales", role: "manager" } },
        action: act("read", { method: "GET" }),
        resource: { ...record1, properties: { status: "active", owner: "bob" } },
      },
      true,
    ),
  ),
  basic("2-2-9 unknown fields", evaluation({ ...readIt, foo: "bar", futureField: { nested: true } }, true)),
  basic("2-3-1 decision is a boolean, context an object", evaluation(readIt, undefined)),
  ...["subject", "action", "resource"].map((member) =>
    basic(`2-4-1 without ${member}`, refused("evaluation", without(readIt, member))),
  ),
  basic("2-4-2 subject without type", refused("evaluation", { ...readIt, subject: { id: "alice" } })),
  basic("2-4-2 subject without id", refused("evaluation", { ...readIt, subject: { type: "user" } })),
  basic("2-4-2 action without name", refused("evaluation", { ...readIt, action: {} })),
  basic("2-4-2 resource without type", refused("evaluation", { ...readIt, resource: { id: "record-1" } })),
  basic("2-4-2 resource without id", refused("evaluation", { ...readIt, resource: { type: "record" } })),
  basic("2-4-3 another content type", raw({ "content-type": "text/plain" }, JSON.stringify(readIt))),
  basic("2-4-3 no content type", raw({}, JSON.stringify(readIt))),
  basic("2-4-4 malformed JSON", raw(JSON_TYPE, '{"subject":')),
  basic("2-4-5 an empty body", raw(JSON_TYPE, "")),
  basic("2-4-6 subject is a string", refused("evaluation", { ...readIt, subject: "alice" })),
  basic("2-4-6 action.name is a number", refused("evaluation", { ...readIt, action: { name: 123 } })),
  basic("2-5-1 X-Request-ID is echoed", async (pdp) => {
    const id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716";
    const { headers } = await post(pdp, pdp.paths.evaluation, readIt, { "X-Request-ID": id });
    must(headers["x-request-id"] === id, `X-Request-ID ${headers["x-request-id"]} instead of ${id}`);
  }),
  basic("2-5-2 no X-Request-ID", evaluation(readIt, true)),
  basic("2-6 the same answer again", async (pdp) => {
    for (let turn = 0; turn < 5; turn += 1) {
      await evaluation(readIt, true)(pdp);
      await evaluation({ subject: bob, action: act("write"), resource: record1 }, false)(pdp);
    }
  }),

  batched("3-2-1 two evaluations", evaluations(defaultsAndItems, [undefined, undefined])),
  batched(
    "3-2-2 fixture decisions, in order",
    evaluations({ subject: bob, resource: record1, evaluations: [{ action: act("read") }, { action: act("write") }] }, [
      true,
      false,
    ]),
  ),
  batchedProperties(
    "3-2-3 properties of resources",
    evaluations(
      {
        subject: alice,
        action: act("write"),
        evaluations: [{ resource: { ...record1, properties: { status: "active" } } }, { resource: archived }],
      },
      [true, false],
    ),
  ),
  batchedProperties(
    "3-2-4 properties of subjects",
    evaluations({ action: act("write"), resource: archived, evaluations: [{ subject: alice }, { subject: admin }] }, [
      false,
      true,
    ]),
  ),
  batched(
    "3-2-5 no defaults",
    evaluations({ evaluations: [readIt, { subject: bob, action: act("write"), resource: record1 }] }, [true, false]),
  ),
  batched(
    "3-2-6 context is inherited",
    evaluations(
      {
        subject: alice,
        action: act("read"),
        context: { time: "2025-06-27T18:03-07:00" },
        evaluations: [
          { resource: record1 },
          { resource: record2, context: { time: "2025-06-27T19:00-07:00", source: "batch-override" } },
        ],
      },
      [undefined, undefined],
    ),
  ),
  batchedProperties(
    "3-2-7 names of the default complete an item",
    evaluations(
      {
        subject: alice,
        action: act("write"),
        resource: { type: "record" },
        evaluations: [{ resource: { id: "record-1", properties: { status: "active" } } }, { resource: archived }],
      },
      [true, false],
    ),
  ),
  batchedProperties(
    "3-2-7 properties of the default do not",
    evaluations(
      {
        subject: alice,
        action: act("write"),
        resource: { type: "record", properties: { status: "archived" } },
        evaluations: [{ resource: { id: "record-1" } }],
      },
      [true],
    ),
  ),
  batched("3-3-1 as many answers as questions", async (pdp) => {
    const many = Array.from({ length: 17 }, () => ({ resource: record1 }));
    const answers = await batch(pdp, { subject: alice, action: act("read"), evaluations: many });
    must(answers.length === many.length, `${answers.length} answers instead of ${many.length}`);
    for (const answer of answers) decisionIn(answer);
  }),
  batched("3-3-4 no decision beside evaluations", async (pdp) => {
    const answer = successOf(await post(pdp, pdp.paths.evaluations, defaultsAndItems));
    must(!("decision" in answer), "a decision stands beside the evaluations");
  }),
  batched(
    "3-4-1 an item that fails is denied",
    evaluations({ subject: alice, action: act("read"), evaluations: [{ resource: record1 }, {}] }, [true, false]),
  ),
  batched("3-4-1 malformed JSON is the whole request's", async (pdp) => {
    const { status } = await pdp.send({ method: "POST", path: pdp.paths.evaluations, headers: JSON_TYPE, body: "[" });
    must(status === 400, `status ${status} instead of 400`);
  }),
  batched("3-4-2 without evaluations", async (pdp) => {
    must(decisionIn(successOf(await post(pdp, pdp.paths.evaluations, readIt))), "decision false instead of true");
  }),
  batched("3-4-3 with no evaluations", async (pdp) => {
    const body = { ...readIt, evaluations: [] };
    must(decisionIn(successOf(await post(pdp, pdp.paths.evaluations, body))), "decision false instead of true");
  }),
  batched(
    "execute_all answers all",
    evaluations(
      {
        subject: bob,
        resource: record1,
        options: { evaluations_semantic: "execute_all" },
        evaluations: [{ action: act("write") }, { action: act("read") }],
      },
      [false, true],
    ),
  ),
  batched(
    "deny_on_first_deny ends with the first deny",
    evaluations(
      {
        subject: bob,
        resource: record1,
        options: { evaluations_semantic: "deny_on_first_deny" },
        evaluations: [{ action: act("read") }, { action: act("write") }, { action: act("read") }],
      },
      [true, false],
    ),
  ),
  batched(
    "permit_on_first_permit ends with the first permit",
    evaluations(
      {
        subject: bob,
        resource: record1,
        options: { evaluations_semantic: "permit_on_first_permit" },
        evaluations: [{ action: act("write") }, { action: act("read") }, { action: act("read") }],
      },
      [false, true],
    ),
  ),

  searched("4-2-1 S1 who can read record-1", searchFinds("subject", subjectSearch, ["alice", "bob"])),
  searched(
    "4-2-2 subject search with context",
    searchFinds("subject", { ...subjectSearch, context: { time: "2025-06-27T18:03-07:00" } }, []),
  ),
  searched(
    "4-2-3 an id is ignored",
    searchFinds("subject", { ...subjectSearch, subject: { type: "user", id: "alice" } }, ["alice", "bob"]),
  ),
  searchedProperties(
    "4-2-4 S4 who can write what is archived",
    searchFinds("subject", { subject: { type: "user" }, action: act("write"), resource: archived }, ["bob"]),
  ),
  searched(
    "4-3-1 S2 what alice can read",
    searchFinds("resource", { subject: alice, action: act("read"), resource: { type: "record" } }, ["record-1"]),
  ),
  searched(
    "4-3-2 an id is ignored",
    searchFinds("resource", { subject: alice, action: act("read"), resource: record2 }, ["record-1"]),
  ),
  searchedProperties(
    "4-3-3 S5 what an admin can write",
    searchFinds("resource", { subject: admin, action: act("write"), resource: { type: "record" } }, ["record-2"]),
  ),
  searched(
    "4-4-1 S3 what alice can do",
    searchFinds("action", { subject: alice, resource: record1 }, ["read", "write"]),
  ),
  searched(
    "4-4-2 action search with context",
    searchFinds("action", { subject: alice, resource: record1, context: { time: "2024-10-26T01:22-07:00" } }, []),
  ),
  searchedProperties(
    "4-4-3 S6 what an admin can do",
    searchFinds("action", { subject: admin, resource: archived }, ["write"]),
  ),
  searched("4-5 pages of one", async (pdp) => {
    const seen: string[] = [];
    let token: string | undefined;
    for (let turn = 0; turn < 100; turn += 1) {
      const page = token === undefined ? { limit: 1 } : { token };
      const answer = successOf(await post(pdp, pdp.paths.subject, { ...subjectSearch, page }));
      must(Array.isArray(answer.results), "results is no array");
      seen.push(...(answer.results as Body[]).map(({ id }) => String(id)));
      // Without pages everything is in the one answer (4-5-4).
      if (answer.page === undefined && token === undefined) break;
      must(isObject(answer.page), "page is no object");
      must(typeof answer.page.next_token === "string", "page.next_token is no string");
      token = answer.page.next_token;
      if (token === "") break;
    }
    must(token === undefined || token === "", "the pages do not end");
    must(seen.includes("alice") && seen.includes("bob"), `the pages hold ${seen.join(", ")}`);
    must(new Set(seen).size === seen.length, "a result is on two pages");
  }),
  searched(
    "4-6-1 an unknown subject",
    searchIsEmpty("action", { subject: { type: "user", id: "nonexistent-user" }, resource: record1 }),
  ),
  searched(
    "4-6-2 an unknown type of subject",
    searchIsEmpty("subject", { ...subjectSearch, subject: { type: "spaceship" } }),
  ),
  searched(
    "4-6-2 an unknown type of resource",
    searchIsEmpty("resource", { subject: alice, action: act("read"), resource: { type: "spaceship" } }),
  ),
  searched("4-7-1 subject search without action", refused("subject", without(subjectSearch, "action"))),
  searched(
    "4-7-1 resource search without subject",
    refused("resource", { action: act("read"), resource: { type: "record" } }),
  ),
  searched("4-7-1 action search without resource", refused("action", { subject: alice })),
  searched(
    "4-7-2 subject search, resource without id",
    refused("subject", { ...subjectSearch, resource: { type: "record" } }),
  ),
  searched(
    "4-7-2 resource search, subject without id",
    refused("resource", { subject: { type: "user" }, action: act("read"), resource: { type: "record" } }),
  ),

  discovery("6-2 the metadata is there", async (pdp) => void (await metadata(pdp))),
  discovery("6-3 policy_decision_point is the base", async (pdp) => {
    const { policy_decision_point: named } = await metadata(pdp);
    must(named === pdp.target.base, `${JSON.stringify(named)} instead of ${pdp.target.base}`);
  }),
  discovery("6-3 access_evaluation_endpoint", async (pdp) => {
    const { access_evaluation_endpoint: url } = await metadata(pdp);
    must(isEndpoint(url, pdp.target.base), `${JSON.stringify(url)} is no endpoint`);
  }),
  discovery("6-4 the other endpoints", async (pdp) => {
    const document = await metadata(pdp);
    for (const key of Object.values(METADATA_KEYS)) {
      if (document[key] !== undefined) must(isEndpoint(document[key], pdp.target.base), `${key} is no endpoint`);
    }
  }),
  discovery("6-4 capabilities are strings", async (pdp) => {
    const { capabilities } = await metadata(pdp);
    const isList = Array.isArray(capabilities) && capabilities.every((one) => typeof one === "string");
    must(capabilities === undefined || isList, "capabilities is no list of strings");
  }),
  discovery("parameters without a value are omitted", async (pdp) => {
    for (const [key, value] of Object.entries(await metadata(pdp))) {
      const isEmpty = value === null || value === "" || (Array.isArray(value) && value.length === 0);
      must(!isEmpty, `${key} has no value`);
    }
  }),
];

import { resolve } from "node:path";
import { z } from "zod";
import type { EngineConfig, PolicyConfig, ScopeItem } from "./config.js";
import { durationSeconds } from "./duration.js";
import { text } from "./schema-text.js";
import { checkDecisionPointUrl, checkPath, type ValueCheck } from "./values.js";

/** The part of `agentid.yaml` that says which engines judge what. */

/** The name that decisions give to our own rules. */
export const RULES_ENGINE = "rules";

const KINDS = ["cedar", "rego", "bundle", "opa", "authzen"] as const;

const SCOPE =
  "a service's name, a pattern of identities as in `to` of a rule, or `{ type: record }` for a type of resources";

const scope = (description: string) =>
  z
    .array(
      z.union([
        z.string().min(1, { message: "names nothing" }),
        z.strictObject({ type: z.string().min(1, { message: "names nothing" }) }),
      ]),
    )
    .min(1)
    .meta({ description, examples: [["invoices", { type: "record" }]] });

const name = text(
  (value) => {
    if (value === RULES_ENGINE) return `${RULES_ENGINE} are agentid's own rules; give the engine another name`;
    return /^[a-z][a-z0-9-]{0,62}$/.test(value) ? undefined : "a name holds only a-z, 0-9 and dashes, as in finance";
  },
  { description: "How decisions name the engine.", examples: ["finance"] },
);

const timeout = text(
  (value) => {
    const millis = timeoutMillis(value);
    if (millis === undefined) return "not a time; write it as 250ms or 2s";
    return millis >= 10 && millis <= 60_000 ? undefined : "must be from 10ms to 60s";
  },
  {
    description:
      "The longest that a decision may take; what takes longer is a denial. Default: 500ms for Rego and for what is too large to judge at once, 2s over HTTP.",
    examples: ["250ms", "2s"],
  },
);

const entrypoint = text(
  (value) => (/^[A-Za-z_]\w*(\/[A-Za-z_]\w*)*$/.test(value) ? undefined : "write package and rule as in finance/allow"),
  { description: "Package and rule that answer.", examples: ["finance/allow"] },
);

const typeName = (value: string) =>
  /^[A-Za-z_]\w*(::[A-Za-z_]\w*)*$/.test(value) ? undefined : "not the name of a Cedar type, as in Shop::Agent";

const checkIdentifier: ValueCheck = (value) =>
  value.startsWith("unix:") ? "an identifier is an https:// address" : checkDecisionPointUrl(value);

const engine = z
  .strictObject({
    name,
    cedar: text(checkPath, {
      description: "File or folder of Cedar policies (`*.cedar`).",
      examples: ["policies/cedar"],
    }).optional(),
    schema: text(checkPath, {
      description: "Cedar: file of the schema, in Cedar's or JSON syntax. Policies and requests are validated by it.",
      examples: ["policies/shop.cedarschema"],
    }).optional(),
    entities: text(checkPath, {
      description: "Cedar: JSON file of further entities, beside those of `entities.yaml`.",
      examples: ["policies/entities.json"],
    }).optional(),
    namespace: text(typeName, {
      description: "Cedar: the namespace of all types and actions.",
      examples: ["Shop"],
    }).optional(),
    types: z
      .record(z.string(), text(typeName))
      .meta({
        description:
          "Cedar: what types of subjects and resources are called there. Default: `spiffe` is `Agent`, `http`, `mcp` and `tcp` are `Service`, `mcp-tool` is `Tool`, `record` is `Record`.",
        examples: [{ spiffe: "Workload" }],
      })
      .optional(),
    rego: text(checkPath, {
      description: "File or folder of Rego, compiled by the `opa` on the PATH.",
      examples: ["policies/finance.rego"],
    }).optional(),
    bundle: text(checkPath, {
      description: "Bundle that `opa build -t wasm` made.",
      examples: ["policies/finance.tar.gz"],
    }).optional(),
    entrypoint: entrypoint.optional(),
    data: text(checkPath, {
      description: "Rego: JSON file, `data` of the policy.",
      examples: ["policies/finance.json"],
    }).optional(),
    opa: text(checkDecisionPointUrl, {
      description: "Address of an OPA server; plain `http://` or `unix:` on this machine only.",
      examples: ["http://127.0.0.1:8181"],
    }).optional(),
    path: text(
      (value) =>
        /^[A-Za-z_][\w.-]*(\/[\w.-]+)*$/.test(value) ? undefined : "write the path below /v1/data as in finance/allow",
      { description: "OPA: the document below `/v1/data/` that answers.", examples: ["finance/allow"] },
    ).optional(),
    authzen: text(checkIdentifier, {
      description:
        "Identifier of an AuthZEN decision point, exactly as its metadata gives it; plain `http://` on this machine only.",
      examples: ["https://pdp.example"],
    }).optional(),
    tokenFile: text(checkPath, {
      description: "Over HTTP: file with the bearer token to send.",
      examples: ["secrets/pdp-token"],
    }).optional(),
    ca: text(checkPath, {
      description:
        "Over https: PEM file of the authorities that may sign the server's certificate. Default: those of the Web PKI.",
      examples: ["ca/pdp.pem"],
    }).optional(),
    timeout: timeout.optional(),
    scope: scope(`What it is asked about: ${SCOPE}. Default: everything.`).optional(),
  })
  .superRefine((written, context) => {
    const kinds = KINDS.filter((kind) => written[kind] !== undefined);
    if (kinds.length !== 1) {
      context.addIssue({
        code: "custom",
        message: `needs exactly one of ${KINDS.join(", ").replace(/, (\w+)$/, " and $1")}`,
      });
      return;
    }
    const [kind] = kinds;
    const allowed = KEYS_OF[kind ?? "cedar"];
    for (const key of Object.keys(written)) {
      if (COMMON.includes(key) || allowed.keys.includes(key)) continue;
      context.addIssue({ code: "custom", message: `does not go with ${kind}`, path: [key] });
    }
    for (const key of allowed.needs) {
      if (written[key] === undefined) context.addIssue({ code: "custom", message: `${kind} needs ${key}` });
    }
  });

const COMMON: readonly string[] = ["name", "scope", "timeout"];
type Key = "entrypoint" | "path";
const KEYS_OF: Record<(typeof KINDS)[number], { readonly keys: readonly string[]; readonly needs: readonly Key[] }> = {
  cedar: { keys: ["cedar", "schema", "entities", "namespace", "types"], needs: [] },
  rego: { keys: ["rego", "entrypoint", "data"], needs: ["entrypoint"] },
  bundle: { keys: ["bundle", "entrypoint", "data"], needs: ["entrypoint"] },
  opa: { keys: ["opa", "path", "tokenFile", "ca"], needs: ["path"] },
  authzen: { keys: ["authzen", "tokenFile", "ca"], needs: [] },
};

export const policy = z
  .strictObject({
    rules: z
      .strictObject({
        scope: scope(`What the rules in \`policies\` are asked about: ${SCOPE}. Default: everything.`).optional(),
      })
      .meta({ description: "agentid's own rules." })
      .optional(),
    engines: z
      .array(engine)
      .meta({
        description:
          "Cedar, Rego, and decision points elsewhere. Of the engines that are asked about a resource all must permit, the rules among them; what no engine is asked about is denied.",
        examples: [
          [{ name: "finance", rego: "policies/finance.rego", entrypoint: "finance/allow", scope: ["invoices"] }],
        ],
      })
      .optional(),
  })
  .meta({ description: "Which engines judge what ([engines.md](engines.md))." });

type PolicyEntry = z.infer<typeof policy>;
type EngineEntry = z.infer<typeof engine>;

/** What a decision may take that is not made at once. */
const THREAD_MILLIS = 500;
const REMOTE_MILLIS = 2_000;

/** `250ms`, `2s` → milliseconds. */
function timeoutMillis(written: string): number | undefined {
  const millis = /^(\d{1,6})ms$/.exec(written)?.[1];
  if (millis !== undefined) return Number(millis);
  const seconds = durationSeconds(written);
  return seconds === undefined ? undefined : seconds * 1000;
}

/** What the checked `policy` section means; the rules alone, about everything, where there is none. */
export function policyConfigOf(written: PolicyEntry | undefined, projectDirectory: string): PolicyConfig {
  return {
    rulesScope: written?.rules?.scope?.map(scopeItemOf),
    engines: (written?.engines ?? []).map((entry) => engineOf(entry, projectDirectory)),
  };
}

function scopeItemOf(item: string | { readonly type: string }): ScopeItem {
  return typeof item === "string" ? { identity: item } : { type: item.type };
}

function engineOf(entry: EngineEntry, projectDirectory: string): EngineConfig {
  const absolute = (path: string) => resolve(projectDirectory, path);
  const optional = (path: string | undefined) => (path === undefined ? undefined : absolute(path));
  const base = { name: entry.name, scope: entry.scope?.map(scopeItemOf) };
  const millis = (standard: number) => (entry.timeout && timeoutMillis(entry.timeout)) || standard;
  const remote = { tokenFile: optional(entry.tokenFile), ca: optional(entry.ca), timeoutMillis: millis(REMOTE_MILLIS) };
  if (entry.cedar !== undefined) {
    return {
      ...base,
      kind: "cedar",
      policies: absolute(entry.cedar),
      schema: optional(entry.schema),
      entities: optional(entry.entities),
      namespace: entry.namespace,
      types: entry.types ?? {},
      timeoutMillis: millis(THREAD_MILLIS),
    };
  }
  if (entry.opa !== undefined) {
    return { ...base, ...remote, kind: "opa", url: serverUrl(entry.opa, projectDirectory), path: entry.path ?? "" };
  }
  if (entry.authzen !== undefined) {
    return { ...base, ...remote, kind: "authzen", url: serverUrl(entry.authzen, projectDirectory) };
  }
  return {
    ...base,
    kind: "rego",
    source: entry.bundle === undefined ? { rego: absolute(entry.rego ?? "") } : { bundle: absolute(entry.bundle) },
    entrypoint: entry.entrypoint ?? "",
    data: optional(entry.data),
    timeoutMillis: millis(THREAD_MILLIS),
  };
}

function serverUrl(written: string, projectDirectory: string): string {
  return written.startsWith("unix:") ? `unix:${resolve(projectDirectory, written.slice("unix:".length))}` : written;
}

/** Absolute paths of what the engines read: their policies (files or folders), schemas, data. */
export function engineFiles({ engines }: PolicyConfig): readonly string[] {
  return engines.flatMap((engine) => {
    switch (engine.kind) {
      case "cedar":
        return [engine.policies, engine.schema, engine.entities].filter((path) => path !== undefined);
      case "rego": {
        const source = "rego" in engine.source ? engine.source.rego : engine.source.bundle;
        return engine.data === undefined ? [source] : [source, engine.data];
      }
      default:
        return [engine.ca, engine.tokenFile].filter((path) => path !== undefined);
    }
  });
}

/** What of the engines nobody else is to see: tokens, and the sockets at which they are asked. */
export function engineSecrets({ engines }: PolicyConfig): readonly string[] {
  return engines.flatMap((engine) => {
    if (engine.kind !== "opa" && engine.kind !== "authzen") return [];
    const socket = engine.url.startsWith("unix:") ? engine.url.slice("unix:".length) : undefined;
    return [engine.tokenFile, socket].filter((path) => path !== undefined);
  });
}

/** Where an engine's verdicts come from and what it is asked about, in one line. */
export function describeEngine(engine: EngineConfig): string {
  const { name: _, scope, kind, ...rest } = engine;
  const settings = Object.entries(rest)
    .filter(([, value]) => value !== undefined && (typeof value !== "object" || Object.keys(value).length > 0))
    .map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  return `${kind}, ${settings.join(", ")}, about ${describeScope(scope)}`;
}

/** `everything`, `invoices, type record`. */
export function describeScope(scope: readonly ScopeItem[] | undefined): string {
  return scope?.map((item) => ("type" in item ? `type ${item.type}` : item.identity)).join(", ") ?? "everything";
}

import { stringify } from "yaml";
import { z } from "zod";
import { configFile } from "./schema.js";

/**
 * What follows from the schema for editors and readers: `templates/agentid.schema.json` and `docs/configuration.md`.
 * `npm run generate:config` writes both; a test fails when they are not current.
 */

type JsonSchema = z.core.JSONSchema.BaseSchema;

/** The JSON Schema (2020-12) of `agentid.yaml`, as text. */
export function configJsonSchema(): string {
  return `${JSON.stringify(z.toJSONSchema(configFile, { io: "input" }), undefined, 2)}\n`;
}

const INTRODUCTION = `# agentid.yaml

<!-- Generated from src/config/schema.ts by \`npm run generate:config\`. -->

One file describes a trust domain: who is who, where the services are, how long credentials live. It is YAML 1.2; duplicate and unknown keys are
errors that name the line and the nearest valid choice. Relative paths start at the folder that holds the file.

Editors complete and check it with the JSON Schema that \`agentid init\` puts beside it:

\`\`\`yaml
# yaml-language-server: $schema=./agentid.schema.json
\`\`\`
`;

const EXAMPLE = `## Example

\`\`\`yaml
trustDomain: shop.local

identities:
  agents/billing:
    launch: [python3, agents/billing.py]
  agents/planner:
    user: dev
    exe: { path: /usr/bin/node, sha256: pinned }
  mcp/payments: { service: payments }

services:
  payments: { mcp: { command: [node, mcp/payments.js] } }
  invoices: { http: { unix: run/invoices.sock } }
  legacy: { http: http://127.0.0.1:8080 }

egress:
  openai: { url: https://api.openai.com, header: { Authorization: "Bearer \${secret:openai}" } }

policies: policies/
lifetimes: { x509: 10m, jwt: 5m, ca: 24h }
\`\`\`
`;

const ENVIRONMENT = `## What programs find in their environment

| Variable | Who gets it | What it is |
|---|---|---|
| \`AGENTID_LISTEN\` | services that agentid starts (\`command\`) | path of the Unix socket to listen on |
| \`AGENTID_URL_NAME\` | agents that \`agentid run\` starts | base URL of the service or egress target; the name in upper case, dashes as underscores: \`AGENTID_URL_PAYMENTS\` |
| \`AGENTID_ADDRESS_NAME\` | the same | \`host:port\` of a \`tcp\` service instead of a URL, of a \`grpc\` one beside it |
| \`AGENTID_SOCKET_NAME\` | the same, outside a sandbox | path of the Unix socket of a service with \`listen: { unix: … }\` |
| \`AGENTID_MTLS_NAME\` | the same | \`host:port\` where the relay takes mutual TLS for the service, from agents that use their SVID themselves |
| \`HTTPS_PROXY\`, \`HTTP_PROXY\`, \`NO_PROXY\` and in lower case, \`NODE_USE_ENV_PROXY\` | the same, where a target says \`connect\` | where CONNECT is taken |
| \`SPIFFE_ENDPOINT_SOCKET\` | the same | address of the Workload API |
`;

/** The reference page of `agentid.yaml`, as Markdown. */
export function configReference(): string {
  const schema = z.toJSONSchema(configFile, { io: "input" });
  return [INTRODUCTION, EXAMPLE, ...sections([], schema), ENVIRONMENT].join("\n");
}

/** The example of the reference page as a file, so that a test can load it. */
export function referenceExample(): string {
  return EXAMPLE.replace(/^[\s\S]*```yaml\n/, "").replace(/```\n$/, "");
}

/** A table of the mapping at `path`, then those of the mappings inside it. */
function sections(path: readonly string[], schema: JsonSchema): readonly string[] {
  const properties = Object.entries(schema.properties ?? {}).flatMap(([name, property]) =>
    typeof property === "object" ? [{ name, property }] : [],
  );
  const rows = properties.map(({ name, property }) =>
    row(name, property, schema.required?.includes(name) === true, path.length > 0),
  );
  const title = path.length === 0 ? "## Keys" : `### ${path.map((step) => `\`${step}\``).join(" → ")}`;
  return [
    `${title}\n\n| Key | Value | What it does |\n|---|---|---|\n${rows.join("\n")}\n`,
    ...properties.flatMap(({ name, property }) => inner([...path, name], property)),
  ];
}

function inner(path: readonly string[], schema: JsonSchema): readonly string[] {
  const entries = schema.additionalProperties;
  if (typeof entries === "object" && entries.type !== "string") return sections([...path, "NAME"], entries);
  const forms = formsOf(schema);
  const items = forms.map(({ items }) => items).find((each) => typeof each === "object" && !Array.isArray(each));
  // A list of mappings is a table of what each of them holds.
  if (typeof items === "object" && !Array.isArray(items) && items.properties !== undefined)
    return sections(path, items);
  const mapping = forms.find((form) => form.properties !== undefined);
  // `mcp` and `grpc` take what `http` takes.
  if (mapping === undefined || ["mcp", "grpc"].includes(path.at(-1) ?? "")) return [];
  return sections(path, mapping);
}

function row(name: string, schema: JsonSchema, required: boolean, nested: boolean): string {
  const value = kindsOf(schema).join(" or ");
  const examples = schema.examples?.filter((example) => example !== schema.default) ?? [];
  const example = examples.length === 0 ? "" : ` For example ${examples.map(inlineYaml).join(" or ")}.`;
  const standard =
    schema.default === undefined || schema.default === "" ? "" : ` Default: \`${String(schema.default)}\`.`;
  const needed = required && !nested ? " Required." : "";
  return `| \`${name}\` | ${value} | ${escapePipes(`${schema.description ?? ""}${needed}${standard}${example}`)} |`;
}

function formsOf(schema: JsonSchema): readonly JsonSchema[] {
  return schema.anyOf?.filter((form) => typeof form === "object") ?? [schema];
}

function kindsOf(schema: JsonSchema): readonly string[] {
  return formsOf(schema).map((form) => {
    if (form.enum !== undefined) return form.enum.map((choice) => `\`${String(choice)}\``).join(" or ");
    switch (form.type) {
      case "string":
        return "text";
      case "array":
        return "list";
      case "boolean":
        return "`true` or `false`";
      case "integer":
        return "number";
      default:
        return "mapping";
    }
  });
}

function inlineYaml(value: unknown): string {
  const text = stringify(value, {
    collectionStyle: "flow",
    flowCollectionPadding: false,
    lineWidth: 0,
    version: "1.2",
  }).trim();
  return `\`${text}\``;
}

function escapePipes(text: string): string {
  return text.replaceAll("|", "\\|");
}

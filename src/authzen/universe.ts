import type { Properties } from "../policy/access-request.js";
import { CONNECT } from "../policy/access-request-of.js";
import type { Entity } from "../policy/entities.js";
import type { AuthzenParts, KnownService } from "./parts.js";

/** Somebody or something that a search may find, as it is asked about and as it is answered. */
export interface Candidate {
  readonly type: string;
  readonly id: string;
  /** Of a tool its name: without it the id, which is the server's, would say too little. */
  readonly properties?: Properties;
}

const HTTP_ACTIONS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"].map(
  (name) => `http:${name}`,
);

/** Requests of a client to an MCP server of both eras, without `tools/call`, which is an action on a tool. */
const MCP_ACTIONS: readonly string[] = [
  ...["initialize", "server/discover", "ping", "tools/list", "prompts/list", "prompts/get"],
  ...["resources/list", "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe"],
  ...["subscriptions/listen", "completion/complete", "logging/setLevel"],
  ...["tasks/list", "tasks/get", "tasks/result", "tasks/cancel", "tasks/update"],
];

type Known = Pick<AuthzenParts, "registry" | "services" | "entities" | "actionsOn" | "toolsOf">;

/** All who can be the subject of a request, of `type`: identities with their living instances, or entities. */
export function subjectsOf(type: string, { registry, entities }: Known): readonly Candidate[] {
  if (type !== "spiffe") return entities().ofType(type).map(named);
  const all = [...registry.identities, ...registry.instances()];
  return all.map(({ id }) => ({ type, id: id.toString() }));
}

/** All that can be the resource of a request, of `type`: services, pinned tools, or entities. */
export function resourcesOf(type: string, known: Known): readonly Candidate[] {
  const { services, toolsOf, entities } = known;
  const ofProtocol = (protocol: KnownService["protocol"]) => services().filter((one) => one.protocol === protocol);
  switch (type) {
    case "http":
    case "mcp":
    case "tcp":
      return ofProtocol(type).map(({ id }) => ({ type, id }));
    case "mcp-tool":
      return ofProtocol("mcp").flatMap(({ id, name }) =>
        toolsOf(name).map((tool) => ({ type, id, properties: { tool } })),
      );
    default:
      return entities().ofType(type).map(named);
  }
}

/** All actions that a resource of `type` can have. */
export function actionsOf(type: string, { actionsOn }: Known): readonly string[] {
  if (type === "http") return HTTP_ACTIONS;
  if (type === "mcp") return MCP_ACTIONS;
  if (type === "tcp") return [CONNECT];
  return type === "mcp-tool" ? ["tools/call"] : actionsOn(type);
}

/**
 * Whether searches know `named` at all: of a type that entities are of, only the entities are known; of every other type all that has the form.
 * A search about somebody unknown finds nothing.
 */
export function isKnown(one: { readonly type: string; readonly id: string }, { entities }: Known): boolean {
  const directory = entities();
  return !directory.types.includes(one.type) || directory.get(one.type, one.id) !== undefined;
}

function named({ type, id }: Entity): Candidate {
  return { type, id };
}

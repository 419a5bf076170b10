import { randomBytes } from "node:crypto";
import { messageOf } from "../coded-error.js";
import type { IdentityConfig, LaunchConfig } from "../config/config.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import { instanceIdentity } from "../identity/instances.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { Refuse } from "./launch-refusal.js";

const LONGEST_INSTANCE = 64;

/** The name of the instance that a launch asks for; `auto` is a new one. */
export function instanceOf(
  registry: IdentityRegistry,
  { instance }: { readonly instance?: string | undefined },
  identity: IdentityConfig,
  wanted: LaunchConfig,
  refuse: Refuse,
): string | undefined {
  if (instance === undefined) return undefined;
  if (!wanted.instances) {
    return refuse(`${identity.name} has no instances`, "its entry would have to say so: launch: { instances: true }");
  }
  const named = instance === "auto" ? randomBytes(5).toString("hex") : instance;
  const wrong = whyNoInstance(identity, named);
  if (wrong !== undefined) return refuse(`${JSON.stringify(instance)} is no name of an instance: ${wrong}`, "");
  const { id } = instanceIdentity(identity, named);
  if (registry.isRevoked(id)) return refuse(`${id.name} is revoked`, `to give it back: agentid revoke --undo ${id}`);
  return named;
}

/** One segment of a SPIFFE ID's path. */
function whyNoInstance({ id, name }: IdentityConfig, instance: string): string | undefined {
  if (instance.length > LONGEST_INSTANCE) return `longer than ${LONGEST_INSTANCE} characters`;
  if (instance.includes("/")) return "it has one segment";
  try {
    SpiffeId.of(id.trustDomain, `${name}/${instance}`);
    return undefined;
  } catch (thrown) {
    return messageOf(thrown);
  }
}

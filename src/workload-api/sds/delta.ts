import { type handleBidiStreamingCall, status } from "@grpc/grpc-js";
import type { IdentifiedCaller } from "../authorization.js";
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
} from "../generated/envoy/service/discovery/v3/discovery.js";
import { StatusError } from "../grpc-status.js";
import { type Catalogue, SECRET_TYPE, type SecretResource, versionOf } from "./catalogue.js";
import { type Validation, validationOf } from "./node.js";
import { type Conversation, carry, checkType, newNonce, reportNack, type SdsDependencies } from "./protocol.js";

const DELTA = "DeltaSecrets";
const EVERYTHING = "*";
/** More names than this at once are no configuration of anybody's. */
const MOST_NAMES = 10_000;

/** DeltaSecrets: every answer holds only what the client does not have yet, and says what it may no longer have. */
export function deltaSecrets(
  d: SdsDependencies,
): handleBidiStreamingCall<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
  return d.streams.converse(carry(d, DELTA, (who) => converse(d, who)));
}

function converse(
  d: SdsDependencies,
  who: IdentifiedCaller,
): Conversation<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
  let validation: Validation = "by-roots";
  let first = true;
  let everything = false;
  const names = new Set<string>();
  /** What the client has, or was sent and refused: name to version. */
  const has = new Map<string, string>();
  /** Names that were once the client's: if they are lost they are removed, and are no mistake of its configuration. */
  const once = new Set<string>();

  function subscribe(subscribed: readonly string[]): void {
    for (const name of subscribed) {
      if (name === EVERYTHING) everything = true;
      else names.add(name);
      // "The server must still provide those resources": the client may have forgotten what it once had.
      if (!first) has.delete(name);
    }
  }

  function unsubscribe(unsubscribed: readonly string[]): void {
    for (const name of unsubscribed) {
      if (name === EVERYTHING) everything = false;
      names.delete(name);
      has.delete(name);
    }
    // What was had as part of everything only is no longer the server's business.
    if (!everything) for (const name of has.keys()) if (!names.has(name)) has.delete(name);
  }

  /** The names wanted that the caller may have. Those never had and not to be had end the RPC. */
  function available(catalogue: Catalogue): readonly string[] {
    const wanted = [...new Set([...(everything ? catalogue.all : []), ...names])];
    const unknown = wanted.filter((name) => !catalogue.has(name) && !once.has(name));
    if (unknown.length > 0) d.authorization.refuseResources(who, DELTA, unknown);
    return wanted.filter((name) => catalogue.has(name));
  }

  return {
    get validation() {
      return validation;
    },
    receive(request) {
      checkType(request.typeUrl);
      if (request.node !== undefined) validation = validationOf(request.node);
      if (request.errorDetail !== undefined) reportNack(d, who, request.errorDetail);
      const { resourceNamesSubscribe: subscribed, resourceNamesUnsubscribe: unsubscribed } = request;
      if (first) {
        // "Legacy wildcard": a first request that names nothing wants everything.
        everything = subscribed.length === 0;
        for (const [name, version] of Object.entries(request.initialResourceVersions)) {
          has.set(name, version);
          once.add(name);
        }
      }
      subscribe(subscribed);
      unsubscribe(unsubscribed);
      if (names.size > MOST_NAMES) throw new StatusError(status.RESOURCE_EXHAUSTED, `more than ${MOST_NAMES} names`);
      const mayNeedAnswer = first || subscribed.length > 0 || unsubscribed.length > 0;
      first = false;
      return mayNeedAnswer;
    },
    respond(catalogue) {
      const current = available(catalogue).map((name) => catalogue.resource(name));
      const resources = current.filter(({ name, version }) => has.get(name) !== version);
      const stillThere = new Set(current.map(({ name }) => name));
      const removedResources = [...has.keys()].filter((name) => !stillThere.has(name));
      if (resources.length === 0 && removedResources.length === 0) return undefined;
      for (const { name, version } of resources) {
        has.set(name, version);
        once.add(name);
      }
      for (const name of removedResources) has.delete(name);
      return { response: responseOf(current, resources, removedResources), resources };
    },
  };
}

function responseOf(
  current: readonly SecretResource[],
  resources: readonly SecretResource[],
  removedResources: string[],
): DeltaDiscoveryResponse {
  return {
    systemVersionInfo: versionOf(current),
    resources: resources.map(({ name, version, resource }) => ({ name, version, resource })),
    typeUrl: SECRET_TYPE,
    nonce: newNonce(),
    removedResources,
  };
}

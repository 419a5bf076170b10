import type { handleBidiStreamingCall, handleUnaryCall } from "@grpc/grpc-js";
import type { IdentifiedCaller } from "../authorization.js";
import type { DiscoveryRequest, DiscoveryResponse } from "../generated/envoy/service/discovery/v3/discovery.js";
import { unary } from "../unary.js";
import { type Catalogue, catalogueOf, SECRET_TYPE, type SecretResource, versionOf } from "./catalogue.js";
import { type Validation, validationOf } from "./node.js";
import {
  type Conversation,
  carry,
  checkType,
  newNonce,
  recordCertificates,
  reportNack,
  type SdsDependencies,
} from "./protocol.js";

const STREAM = "StreamSecrets";
const FETCH = "FetchSecrets";

/** StreamSecrets: every answer holds all resources that the client names, or all there are if it never named any. */
export function streamSecrets(d: SdsDependencies): handleBidiStreamingCall<DiscoveryRequest, DiscoveryResponse> {
  return d.streams.converse(carry(d, STREAM, (who) => converse(d, who)));
}

/** FetchSecrets: one such answer. */
export function fetchSecrets(d: SdsDependencies): handleUnaryCall<DiscoveryRequest, DiscoveryResponse> {
  return unary(async (call) => {
    const { typeUrl, node, resourceNames } = call.request;
    checkType(typeUrl);
    const who = await d.authorization.identifyCaller(call);
    const granted = d.authorization.entitled(who, FETCH);
    const catalogue = catalogueOf(d, granted, node === undefined ? "by-roots" : validationOf(node));
    const names = resourceNames.length === 0 ? catalogue.all : resourceNames;
    const resources = resourcesNamed(d, who, FETCH, catalogue, names);
    recordCertificates(d, who, resources);
    return responseOf(resources);
  });
}

function converse(d: SdsDependencies, who: IdentifiedCaller): Conversation<DiscoveryRequest, DiscoveryResponse> {
  let validation: Validation = "by-roots";
  /** What the client wants: `undefined` is everything. */
  let wanted: ReadonlySet<string> | undefined;
  /** The client wants something else than before, so it is answered even if nothing else has changed. */
  let owed = true;
  let sent: { readonly version: string; readonly nonce: string } | undefined;

  return {
    get validation() {
      return validation;
    },
    receive({ typeUrl, node, resourceNames, responseNonce, errorDetail }) {
      checkType(typeUrl);
      if (node !== undefined) validation = validationOf(node);
      // About an answer that has been overtaken; the client will say the same of the newer one.
      if (sent !== undefined && responseNonce !== sent.nonce) return false;
      if (errorDetail !== undefined) reportNack(d, who, errorDetail);
      const named = new Set(resourceNames);
      // An empty list is everything only for a client that never named anything (xDS, "How the client specifies what resources to return").
      const next = named.size === 0 && wanted === undefined ? undefined : named;
      if (!sameNames(wanted, next)) owed = true;
      wanted = next;
      return owed;
    },
    respond(catalogue) {
      if (wanted?.size === 0) {
        owed = false;
        return undefined;
      }
      const resources = resourcesNamed(d, who, STREAM, catalogue, wanted ?? catalogue.all);
      const version = versionOf(resources);
      // What was accepted needs no repetition, and what was refused would be refused again.
      if (!owed && version === sent?.version) return undefined;
      owed = false;
      const response = responseOf(resources);
      sent = { version, nonce: response.nonce };
      return { response, resources };
    },
  };
}

/** The resources of these names. Ends the RPC if one of them is not in the catalogue. */
function resourcesNamed(
  d: SdsDependencies,
  who: IdentifiedCaller,
  rpc: string,
  catalogue: Catalogue,
  names: Iterable<string>,
): readonly SecretResource[] {
  const wanted = [...new Set(names)];
  const unknown = wanted.filter((name) => !catalogue.has(name));
  if (unknown.length > 0) d.authorization.refuseResources(who, rpc, unknown);
  return wanted.map((name) => catalogue.resource(name));
}

function responseOf(resources: readonly SecretResource[]): DiscoveryResponse {
  return {
    versionInfo: versionOf(resources),
    resources: resources.map(({ resource }) => resource),
    typeUrl: SECRET_TYPE,
    nonce: newNonce(),
  };
}

function sameNames(one: ReadonlySet<string> | undefined, other: ReadonlySet<string> | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.size === other.size && [...one].every((name) => other.has(name));
}

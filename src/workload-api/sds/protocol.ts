import { randomBytes } from "node:crypto";
import { type ServerDuplexStream, status } from "@grpc/grpc-js";
import type { IdentityRegistry } from "../../identity/entitlement.js";
import type { X509BundleSource, X509SvidSource } from "../../identity/svid-source.js";
import type { Authorization, IdentifiedCaller } from "../authorization.js";
import type { Status } from "../generated/google/rpc/status.js";
import { StatusError, statusOf } from "../grpc-status.js";
import type { OpenStreams } from "../open-streams.js";
import { followRotations } from "../rotations.js";
import type { StreamedState } from "../state-stream.js";
import {
  type Catalogue,
  type CatalogueDependencies,
  catalogueOf,
  SECRET_TYPE,
  type SecretResource,
} from "./catalogue.js";
import type { Validation } from "./node.js";

/** What the secret discovery service stands on. */
export interface SdsDependencies extends CatalogueDependencies {
  readonly authorization: Authorization;
  readonly registry: Pick<IdentityRegistry, "onChange">;
  readonly svids: X509SvidSource;
  readonly bundles: X509BundleSource;
  readonly streams: OpenStreams;
}

/** Of what a client says is wrong, this many characters are shown to people. */
const LONGEST_REASON = 500;

/** One variant of the protocol, as seen by the stream that carries it. */
export interface Conversation<Request, Response> {
  /** Takes a request. True if it may need an answer. What it throws ends the stream. */
  receive(request: Request): boolean;
  /** The answer due now, of what the caller may have now; undefined if the client has everything. What it throws ends the stream. */
  respond(
    catalogue: Catalogue,
  ): { readonly response: Response; readonly resources: readonly SecretResource[] } | undefined;
  readonly validation: Validation;
}

/**
 * Carries a conversation over a stream: an answer after each request that needs one, and again whenever an SVID, a bundle or the configuration changes.
 * The caller and what follows for it are checked afresh before each answer (ST-9), and every certificate is recorded before it leaves.
 */
export function carry<Request, Response>(
  d: SdsDependencies,
  rpc: string,
  begin: (who: IdentifiedCaller) => Conversation<Request, Response>,
): (call: ServerDuplexStream<Request, Response>) => Promise<StreamedState<Response>> {
  return async (call) => {
    const who = await d.authorization.identifyCaller(call);
    const conversation = begin(who);
    const rotations = followRotations(d.svids.onRotation);
    let broken: StatusError | undefined;
    let asked = false;
    return {
      read() {
        if (broken !== undefined) throw broken;
        if (!asked || call.writableEnded) return undefined;
        const granted = d.authorization.entitled(who, rpc);
        const answer = conversation.respond(catalogueOf(d, granted, conversation.validation));
        rotations.follow(granted.map(({ identity }) => identity.id));
        if (answer === undefined) return undefined;
        recordCertificates(d, who, answer.resources);
        return answer.response;
      },
      subscribe(changed) {
        const unsubscribes = [
          d.registry.onChange(changed),
          d.bundles.onBundleChange(changed),
          rotations.subscribe(changed),
        ];
        call.on("data", (request) => {
          asked = true;
          try {
            if (conversation.receive(request)) changed();
          } catch (thrown) {
            broken = statusOf(thrown);
            changed();
          }
        });
        call.on("end", () => call.end());
        return () => {
          for (const unsubscribe of unsubscribes) unsubscribe();
        };
      },
    };
  };
}

/** Writes to the record which certificates are handed out with `resources`. */
export function recordCertificates(
  d: Pick<SdsDependencies, "authorization">,
  who: IdentifiedCaller,
  resources: readonly SecretResource[],
): void {
  for (const { name, certificate } of resources) {
    if (certificate === undefined) continue;
    const { serial, notAfter } = certificate.svid;
    const what = { type: "x509", serial, notAfter: notAfter.toISOString(), secret: name };
    d.authorization.recordDelivery(who, certificate.entitlement, what);
  }
}

/** The service has one type of resource; a client may leave it out. Throws StatusError InvalidArgument for another one. */
export function checkType(typeUrl: string): void {
  if (typeUrl === "" || typeUrl === SECRET_TYPE) return;
  throw new StatusError(status.INVALID_ARGUMENT, `this service has no resources of the type ${typeUrl}`);
}

/** A name for one answer, by which the client accepts or refuses it. */
export function newNonce(): string {
  return randomBytes(8).toString("hex");
}

/** A NACK: the client keeps what it had, and is sent nothing until there is something new. */
export function reportNack(
  d: Pick<SdsDependencies, "authorization">,
  who: IdentifiedCaller,
  { message, code }: Status,
): void {
  d.authorization.reportRejection(who, `the secret was refused (code ${code}): ${message.slice(0, LONGEST_REASON)}`);
}

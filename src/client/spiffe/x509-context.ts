import { createPrivateKey, type KeyObject } from "node:crypto";
import { CodedError, messageOf } from "../../coded-error.js";
import { SpiffeId, TrustDomain } from "../../spiffe/spiffe-id.js";
import { parseX509Bundle } from "../../spiffe/x509-bundle.js";
import { parseCertificate, splitX509Chain } from "../../spiffe/x509-certificate.js";
import type { X509BundlesResponse, X509SVID, X509SVIDResponse } from "../../workload-api/generated/workload.js";
import { WorkloadApiError } from "./workload-api-error.js";

/** An X.509-SVID with its private key, as the Workload API gave it: the key is the leaf's, the ID stands in the leaf. */
export interface X509Svid {
  readonly id: SpiffeId;
  /** DER, leaf first. */
  readonly certificates: readonly Buffer[];
  readonly privateKey: KeyObject;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Lower-case hex. */
  readonly serial: string;
  /** The operator's word on what this identity is for; empty for none. */
  readonly hint: string;
}

/** DER roots by name of their trust domain; never merged. */
export type X509Bundles = ReadonlyMap<string, readonly Buffer[]>;

/** All that a message of FetchX509SVID says. */
export interface X509Context {
  /** At least one; the first is the default identity (Workload API §8). */
  readonly svids: readonly X509Svid[];
  /** Of the SVIDs' own trust domains and of federated ones. */
  readonly bundles: X509Bundles;
}

/** Reads a message of FetchX509SVID. Throws WorkloadApiError `workload-api-message-incomplete` and `workload-api-message-invalid`. */
export function readX509Context(message: X509SVIDResponse): X509Context {
  return invalidUnless(() => {
    requireField(message.svids.length > 0, "svids");
    const bundles = new Map<string, readonly Buffer[]>();
    const svids: X509Svid[] = [];
    for (const one of message.svids) {
      const svid = readSvid(one);
      bundles.set(svid.id.trustDomain.name, parseX509Bundle(one.bundle));
      // Workload API §5.2.1: of several with one hint "the first message in the list SHOULD be selected".
      if (svid.hint === "" || !svids.some(({ hint }) => hint === svid.hint)) svids.push(svid);
    }
    for (const [trustDomain, roots] of readBundles(message.federatedBundles)) {
      // A federated bundle never speaks for a trust domain of our own.
      if (!bundles.has(trustDomain)) bundles.set(trustDomain, roots);
    }
    return { svids, bundles };
  });
}

/** Reads a message of FetchX509Bundles. Throws as `readX509Context`. */
export function readX509Bundles(message: X509BundlesResponse): X509Bundles {
  return invalidUnless(() => {
    requireField(Object.keys(message.bundles).length > 0, "bundles");
    return readBundles(message.bundles);
  });
}

function readBundles(bundles: Readonly<Record<string, Buffer>>): X509Bundles {
  return new Map(Object.entries(bundles).map(([key, der]) => [trustDomainOf(key).name, parseX509Bundle(der)] as const));
}

/** The trust domain that a bundle map's key names: its SPIFFE ID, or as some servers write it, its name. Throws SpiffeIdError, WorkloadApiError. */
export function trustDomainOf(key: string): TrustDomain {
  if (key.includes("://") && SpiffeId.parse(key).path !== "") {
    throw new WorkloadApiError("workload-api-message-invalid", `${key} names a workload, not a trust domain`);
  }
  return TrustDomain.parse(key);
}

function readSvid(svid: X509SVID): X509Svid {
  requireField(svid.spiffeId !== "", "spiffe_id");
  requireField(svid.x509Svid.length > 0, "x509_svid");
  requireField(svid.x509SvidKey.length > 0, "x509_svid_key");
  requireField(svid.bundle.length > 0, "bundle");
  const id = SpiffeId.parse(svid.spiffeId);
  const certificates = splitX509Chain(svid.x509Svid).map((der) => Buffer.from(der));
  const [leaf] = certificates.map((der) => parseCertificate(der));
  if (leaf === undefined) throw incomplete("x509_svid");
  if (leaf.uris.length !== 1 || leaf.uris[0] !== id.toString()) {
    throw invalid(`the certificate for ${id} says ${leaf.uris.join(", ") || "no SPIFFE ID"}`);
  }
  if (id.path === "") throw invalid(`${id} names a trust domain, not a workload`);
  const privateKey = createPrivateKey({ key: svid.x509SvidKey, format: "der", type: "pkcs8" });
  if (!leaf.x509.checkPrivateKey(privateKey)) throw invalid(`the key for ${id} is not its certificate's`);
  return {
    id,
    certificates,
    privateKey,
    notBefore: new Date(leaf.notBefore),
    notAfter: new Date(leaf.notAfter),
    serial: leaf.x509.serialNumber.toLowerCase(),
    hint: svid.hint,
  };
}

/** Workload API §4.5: "Clients receiving a message in which a mandatory field has a default value SHOULD report an error and discard the message." */
function requireField(present: boolean, field: string): void {
  if (!present) throw incomplete(field);
}

function incomplete(field: string): WorkloadApiError {
  return new WorkloadApiError(
    "workload-api-message-incomplete",
    `the Workload API's message was discarded: its mandatory field ${field} is empty`,
  );
}

function invalid(why: string, cause?: unknown): WorkloadApiError {
  return new WorkloadApiError("workload-api-message-invalid", `the Workload API's message was discarded: ${why}`, {
    cause,
  });
}

/** Whatever a server can get wrong is a message to discard, never a crash. */
function invalidUnless<T>(read: () => T): T {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof WorkloadApiError) throw thrown;
    if (thrown instanceof CodedError) throw invalid(thrown.message, thrown);
    throw invalid(`it holds a malformed key (${messageOf(thrown)})`, thrown);
  }
}

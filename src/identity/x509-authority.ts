import { createPrivateKey, X509Certificate } from "node:crypto";
import { CodedError } from "../coded-error.js";
import { launchChainSubject } from "../spiffe/launch-chain.js";
import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import { NOT_BEFORE_CUSHION_MS } from "./authority-schedule.js";
import {
  authorityExtensions,
  authorityName,
  leafNames,
  sharedLeafExtensions,
  signCertificate,
  subjectKeyIdentifier,
} from "./certificate-template.js";
import { generateP256Key } from "./p256-key.js";
import { drawRandom, type RandomBytes } from "./random-stock.js";
import { type RevokedEntry, signRevocationList } from "./revocation-list.js";
import type { UpstreamAuthority } from "./upstream-authority.js";

/** D24. Rotation needs time between preparing and activating. */
const SHORTEST_LIFETIME_SECONDS = 10;
const SERIAL_BYTES = 16;

/** What becomes an X.509-SVID. */
interface X509SvidRequest {
  readonly id: SpiffeId;
  readonly dnsNames: readonly string[];
  /** SPIFFE IDs of the agents that launched its holder, nearest first. */
  readonly launchedBy?: readonly string[];
  /** Wished for; the certificate ends no later than the authority's own. */
  readonly lifetimeSeconds: number;
}

/** A certificate as the authority signed it, with the key made for it. */
interface IssuedX509Svid {
  /** DER, leaf first; the root is not in it. */
  readonly certificates: readonly Buffer[];
  readonly privateKeyPkcs8: Buffer;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Lower-case hex. */
  readonly serial: string;
}

/** What verifiers must be told about certificates that this authority has issued and that are no longer believed. */
/** What a revocation list has to tell. */
export interface RevocationListRequest {
  readonly revoked: readonly RevokedEntry[];
  /** ms. */
  readonly now: number;
}

/** A P-256 authority of one trust domain, a root or below an upstream authority: signs X.509-SVIDs and their revocation list, nothing else. */
export interface X509Authority {
  readonly trustDomain: TrustDomain;
  /** DER of its own certificate. */
  readonly certificate: Buffer;
  /** DER of the certificates above it, the upstream root last; empty for a root. */
  readonly upstreamChain: readonly Buffer[];
  /** DER of the trust bundle's entry: its own certificate, or the upstream root. */
  readonly root: Buffer;
  /** Hex of the subject key identifier: the authority's name in messages and the record. */
  readonly keyId: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Unencrypted PKCS#8, for the key store only. */
  readonly privateKeyPkcs8: Buffer;
  /** Makes a key and signs its certificate at `now` (ms). Throws CodedError `authority-expired` outside the authority's validity, `identity-foreign` for an ID that is not below its trust domain, `dns-name-invalid`. */
  issue(request: X509SvidRequest, now: number): IssuedX509Svid;
  /** A DER revocation list that is valid to the authority's own end: a later one takes its place whenever there is something new to say. */
  revocationList(request: RevocationListRequest): Buffer;
}

/** A new authority valid from `now` (ms) for `lifetimeSeconds`. Throws CodedError `lifetime-too-short` below 10 s (D24), `upstream-expired`, `upstream-not-yet-valid`. */
export function createX509Authority(options: {
  readonly trustDomain: TrustDomain;
  readonly lifetimeSeconds: number;
  readonly now: number;
  /** Signs the authority's certificate; without it the authority is a root. */
  readonly upstream?: UpstreamAuthority | undefined;
  readonly random?: RandomBytes;
}): X509Authority {
  const { trustDomain, lifetimeSeconds, now, upstream, random = drawRandom } = options;
  if (!(lifetimeSeconds >= SHORTEST_LIFETIME_SECONDS)) {
    throw new CodedError("lifetime-too-short", `an authority must live ${SHORTEST_LIFETIME_SECONDS} s or more`);
  }
  if (upstream !== undefined && now >= upstream.notAfter.getTime()) {
    const ended = upstream.notAfter.toISOString();
    throw new CodedError("upstream-expired", `the upstream authority has expired on ${ended}`, {
      hint: "put a new certificate and key where agentid.yaml says; they are taken up at once",
    });
  }
  if (upstream !== undefined && now < upstream.notBefore.getTime()) {
    throw new CodedError("upstream-not-yet-valid", "the upstream authority is not valid yet; is the clock right?");
  }
  const key = generateP256Key();
  const serial = newSerial(random);
  const name = authorityName(serial);
  const certificate = signCertificate(
    {
      issuer: upstream?.subject ?? name,
      subject: name,
      extensions: authorityExtensions(trustDomain.id.toString(), upstream?.keyId),
    },
    {
      serial,
      notBefore: new Date(Math.max(now - NOT_BEFORE_CUSHION_MS, upstream?.notBefore.getTime() ?? 0)),
      notAfter: new Date(
        Math.min(now + lifetimeSeconds * 1000, upstream?.notAfter.getTime() ?? Number.POSITIVE_INFINITY),
      ),
      publicKeyInfo: key.publicKeyInfo,
    },
    upstream?.privateKey ?? createPrivateKey({ key: key.privateKeyPkcs8, format: "der", type: "pkcs8" }),
    upstream?.algorithm,
  );
  const upstreamChain = upstream?.chain ?? [];
  return restoreX509Authority({
    trustDomain,
    certificate,
    upstreamChain,
    privateKeyPkcs8: key.privateKeyPkcs8,
    random,
  });
}

/** The authority of a certificate and key made by `createX509Authority`. Throws CodedError `authority-key-mismatch`. */
export function restoreX509Authority(options: {
  readonly trustDomain: TrustDomain;
  readonly certificate: Buffer;
  readonly upstreamChain?: readonly Buffer[];
  readonly privateKeyPkcs8: Buffer;
  readonly random?: RandomBytes;
}): X509Authority {
  const { trustDomain, certificate, upstreamChain = [], privateKeyPkcs8, random = drawRandom } = options;
  const parsed = new X509Certificate(certificate);
  const privateKey = createPrivateKey({ key: privateKeyPkcs8, format: "der", type: "pkcs8" });
  if (!parsed.checkPrivateKey(privateKey)) {
    throw new CodedError("authority-key-mismatch", "the authority's private key does not belong to its certificate");
  }
  const publicKeyInfo = parsed.publicKey.export({ format: "der", type: "spki" });
  const keyId = subjectKeyIdentifier(publicKeyInfo);
  const issuer = authorityName(Buffer.from(parsed.serialNumber, "hex"));
  const notBefore = parsed.validFromDate;
  const notAfter = parsed.validToDate;
  const shared = sharedLeafExtensions(keyId);
  // XR-3: leaf, then intermediates, never the root.
  const above = upstreamChain.length === 0 ? [] : [certificate, ...upstreamChain.slice(0, -1)];
  let listNumber = 0n;

  return {
    trustDomain,
    certificate,
    upstreamChain,
    root: upstreamChain.at(-1) ?? certificate,
    keyId: keyId.toString("hex"),
    notBefore,
    notAfter,
    privateKeyPkcs8,
    issue(request, now) {
      checkRequest(request, trustDomain);
      if (now < notBefore.getTime() || now >= notAfter.getTime()) {
        throw new CodedError("authority-expired", `the authority of ${trustDomain} is not valid at this time`);
      }
      const end = Math.min(now + request.lifetimeSeconds * 1000, notAfter.getTime());
      const begin = Math.max(now - NOT_BEFORE_CUSHION_MS, notBefore.getTime());
      const serial = newSerial(random);
      const key = generateP256Key();
      const fields = {
        serial,
        notBefore: wholeSeconds(begin),
        notAfter: wholeSeconds(end),
        publicKeyInfo: key.publicKeyInfo,
      };
      const subject = launchChainSubject(request.launchedBy ?? []);
      const extensions = [shared, leafNames(request.id.toString(), request.dnsNames)];
      return {
        certificates: [signCertificate({ issuer, subject, extensions }, fields, privateKey), ...above],
        privateKeyPkcs8: key.privateKeyPkcs8,
        notBefore: fields.notBefore,
        notAfter: fields.notAfter,
        serial: serial.toString("hex"),
      };
    },
    revocationList({ revoked, now }) {
      // Grows across restarts too, because time does; and within one millisecond, because it is counted.
      listNumber = listNumber + 1n > BigInt(now) ? listNumber + 1n : BigInt(now);
      const thisUpdate = wholeSeconds(Math.max(now - NOT_BEFORE_CUSHION_MS, notBefore.getTime()));
      const times = { thisUpdate, nextUpdate: notAfter };
      return signRevocationList({ issuer, authorityKeyId: keyId, ...times, number: listNumber, revoked }, privateKey);
    },
  };
}

/** X509-SVID §3.1: a leaf has a path (XS-2). And never one of another trust domain. */
function checkRequest({ id, dnsNames }: X509SvidRequest, trustDomain: TrustDomain): void {
  if (!id.memberOf(trustDomain) || id.path === "") {
    throw new CodedError("identity-foreign", `${id} is not an identity of the trust domain ${trustDomain}`);
  }
  // RFC 5280 §4.2.1.6: dNSName is an IA5String.
  const invalid = dnsNames.find((name) => !/^[!-~]+$/.test(name));
  if (invalid !== undefined) throw new CodedError("dns-name-invalid", `${JSON.stringify(invalid)} is not a DNS name`);
}

/** 128 random bits, positive (RFC 5280 §4.1.2.2), never 0. */
function newSerial(random: RandomBytes): Buffer {
  for (;;) {
    const serial = random(SERIAL_BYTES);
    if (serial.some((octet) => octet !== 0)) return serial;
  }
}

/** Certificates know whole seconds. */
function wholeSeconds(milliseconds: number): Date {
  return new Date(Math.floor(milliseconds / 1000) * 1000);
}

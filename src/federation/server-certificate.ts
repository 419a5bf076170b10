import { constants, createHash, createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { CodedError, messageOf } from "../coded-error.js";
import type { WebCertificateFiles } from "../config/config.js";
import { createListeners } from "../identity/listeners.js";
import type { X509Svid, X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import { encodePem } from "../spiffe/pem.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";

/** What a public listener presents. PEM. */
interface PresentedCertificate {
  readonly cert: string;
  readonly key: string;
}

export interface ServerCertificate {
  current(): PresentedCertificate;
  /** Called after each replacement; the returned function unsubscribes. */
  onChange(listener: (next: PresentedCertificate) => void): () => void;
  /** By which names it lets verifiers come. */
  readonly dnsNames: readonly string[];
  /** Stops following what it is made from. Idempotent. */
  close(): void;
}

/** Mozilla's intermediate configuration (version 5): forward secrecy and authenticated encryption only. TLS 1.3 brings its own. */
const MOZILLA_INTERMEDIATE = [
  ...["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"],
  ...["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"],
  ...["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"],
  ...["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"],
].join(":");

/** Federation §5.2.1: TLS by Mozilla's intermediate profile; the client is not asked for a certificate. No session is resumed (D12). */
export function serverTlsOptions(presented: PresentedCertificate) {
  return {
    ...presented,
    minVersion: "TLSv1.2",
    ciphers: MOZILLA_INTERMEDIATE,
    ecdhCurve: "X25519:P-256:P-384",
    secureOptions: constants.SSL_OP_NO_TICKET,
    requestCert: false,
  } as const;
}

/** The SVID of `id`, replaced as it rotates. */
export function svidCertificate(svids: X509SvidSource, id: SpiffeId): ServerCertificate {
  const presented = (svid: X509Svid): PresentedCertificate => ({
    cert: svid.certificates.map((der) => encodePem("CERTIFICATE", der)).join(""),
    key: encodePem("PRIVATE KEY", svid.privateKeyPkcs8),
  });
  return {
    current: () => presented(svids.x509Svid(id)),
    onChange: (listener) => svids.onRotation(id, (svid) => listener(presented(svid))),
    dnsNames: [],
    close: () => undefined,
  };
}

const LOOK_EVERY_MS = 60_000;

/**
 * The certificate of `files`, read again every minute: tools that renew certificates replace the files.
 * A replacement that does not fit together is reported, and the last good one stays. Throws CodedError `certificate-unreadable`.
 */
export function fileCertificate(
  files: WebCertificateFiles,
  clock: Clock,
  onProblem: (thrown: unknown) => void,
): ServerCertificate {
  const listeners = createListeners<PresentedCertificate>(onProblem);
  let presented = readCertificate(files);
  let lastSeen = digestOf(presented);
  let cancel = clock.after(LOOK_EVERY_MS, look);

  function look(): void {
    cancel = clock.after(LOOK_EVERY_MS, look);
    try {
      const next = readCertificate(files);
      const seen = digestOf(next);
      if (seen === lastSeen) return;
      lastSeen = seen;
      presented = next;
      listeners.notify(next);
    } catch (thrown) {
      const seen = messageOf(thrown);
      // Said once, not every minute.
      if (seen !== lastSeen) onProblem(thrown);
      lastSeen = seen;
    }
  }

  return {
    current: () => presented,
    onChange: (listener) => listeners.add(listener),
    get dnsNames() {
      const names = new X509Certificate(presented.cert).subjectAltName?.split(", ") ?? [];
      return names.flatMap((name) => (name.startsWith("DNS:") ? [name.slice("DNS:".length)] : []));
    },
    close: () => cancel(),
  };
}

function readCertificate(files: WebCertificateFiles): PresentedCertificate {
  try {
    const cert = readFileSync(files.certificate, "utf8");
    const key = readFileSync(files.key, "utf8");
    if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
      throw new Error(`the key in ${files.key} does not belong to the certificate in ${files.certificate}`);
    }
    return { cert, key };
  } catch (cause) {
    throw new CodedError("certificate-unreadable", `no certificate to present: ${messageOf(cause)}`, { cause });
  }
}

function digestOf({ cert, key }: PresentedCertificate): string {
  return createHash("sha256").update(cert).update("\0").update(key).digest("hex");
}

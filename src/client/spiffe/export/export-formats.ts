import { CodedError } from "../../../coded-error.js";
import type { JwkSet } from "../../../spiffe/jwt-bundle.js";
import { encodePem } from "../../../spiffe/pem.js";
import { serialiseSpiffeBundle } from "../../../spiffe/spiffe-bundle.js";
import { parseCertificate } from "../../../spiffe/x509-certificate.js";
import type { X509Svid } from "../x509-context.js";
import { encodeEncryptedPkcs8 } from "./encrypted-pkcs8.js";
import { encodeKeyStore, encodeTrustStore } from "./pkcs12.js";

/** Everything of one identity that a format may need. */
export interface Exportable {
  readonly svid: X509Svid;
  /** DER roots of the SVID's trust domain. */
  readonly authorities: readonly Buffer[];
  readonly jwtKeys: JwkSet;
}

interface ExportFormat {
  readonly summary: string;
  /** The file holds a private key: for the owner's eyes only. */
  readonly secret: boolean;
  /** `ascii`: who reads it takes no other characters. */
  readonly passphrase: false | "any" | "ascii";
  encode(parts: Exportable, passphrase: string): Buffer;
}

/** What an SVID and its trust can be written as, for programs that do not speak the Workload API. */
export const exportFormats = {
  pem: {
    summary: "private key (unencrypted PKCS#8) and certificate chain, PEM",
    secret: true,
    passphrase: false,
    encode: ({ svid }) =>
      Buffer.from(encodePem("PRIVATE KEY", pkcs8(svid)) + svid.certificates.map(certificate).join("")),
  },
  p8: {
    summary: "private key, encrypted PKCS#8, PEM",
    secret: true,
    passphrase: "any",
    encode: ({ svid }, passphrase) =>
      Buffer.from(encodePem("ENCRYPTED PRIVATE KEY", encodeEncryptedPkcs8(pkcs8(svid), passphrase))),
  },
  p12: {
    summary: "private key and certificate chain, PKCS#12, for Java, browsers and Windows",
    secret: true,
    passphrase: "ascii",
    encode: ({ svid, authorities }, passphrase) =>
      encodeKeyStore({
        privateKeyPkcs8: pkcs8(svid),
        // With its authority: a browser shows, and Java returns, whole chains only.
        certificates: [...svid.certificates, ...issuerAmong(authorities, svid)],
        alias: aliasOf(svid),
        passphrase,
      }),
  },
  truststore: {
    summary: "authorities of the trust domain as a Java trust store (PKCS#12)",
    secret: false,
    passphrase: "ascii",
    encode: ({ svid, authorities }, passphrase) =>
      encodeTrustStore({
        authorities: authorities.map((der, index) => ({ alias: `${svid.id.trustDomain}-${index + 1}`, der })),
        passphrase,
      }),
  },
  jwks: {
    summary: "authorities and token keys of the trust domain as a SPIFFE bundle (JWK Set)",
    secret: false,
    passphrase: false,
    encode: ({ authorities, jwtKeys }) => {
      const numbers = { sequence: undefined, refreshHintSeconds: undefined };
      return Buffer.from(
        `${serialiseSpiffeBundle({ x509Authorities: authorities, jwtKeys: jwtKeys.keys, ...numbers })}\n`,
      );
    },
  },
} as const satisfies Record<string, ExportFormat>;

export type ExportFormatName = keyof typeof exportFormats;

/** `parts` in `format`. Throws CodedError `passphrase-missing` where the format encrypts and there is none, `passphrase-not-ascii`. */
export function encodeExport(format: ExportFormatName, parts: Exportable, passphrase: string | undefined): Buffer {
  const wanted: ExportFormat = exportFormats[format];
  if (wanted.passphrase !== false && (passphrase === undefined || passphrase === "")) {
    throw new CodedError("passphrase-missing", `${format} is protected by a passphrase, and there is none`, {
      hint: "write one to a file that only you can read and name it: --passphrase-file FILE",
    });
  }
  if (wanted.passphrase === "ascii" && !/^[ -~]*$/.test(passphrase ?? "")) {
    throw new CodedError("passphrase-not-ascii", `Java opens ${format} with a passphrase of ASCII characters only`);
  }
  return wanted.encode(parts, passphrase ?? "");
}

function pkcs8({ privateKey }: X509Svid): Buffer {
  return privateKey.export({ type: "pkcs8", format: "der" });
}

function certificate(der: Buffer): string {
  return encodePem("CERTIFICATE", der);
}

/** The authority that signed the last certificate of the chain, if it is among `authorities`. */
function issuerAmong(authorities: readonly Buffer[], { certificates }: X509Svid): readonly Buffer[] {
  const last = parseCertificate(certificates.at(-1) ?? Buffer.alloc(0));
  const issuer = authorities.find((der) => last.x509.verify(parseCertificate(der).x509.publicKey));
  return issuer === undefined ? [] : [issuer];
}

function aliasOf({ id }: X509Svid): string {
  return id.name.slice(id.name.lastIndexOf("/") + 1);
}

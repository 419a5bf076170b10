import { Args } from "@oclif/core";
import { displayText } from "../../control-api/display-text.js";
import { readJwtSvid } from "../../spiffe/jwt-svid.js";
import { parseSvidFile } from "../../spiffe/svid-file.js";
import { readWitSvid } from "../../spiffe/wit-svid-rules.js";
import { type ParsedCertificate, parseCertificate } from "../../spiffe/x509-certificate.js";
import { AgentidCommand } from "../base-command.js";
import { readInput } from "../input-file.js";

export default class SvidShow extends AgentidCommand {
  static override summary = "Show what is in a certificate (PEM, DER) or token, without judging it";
  static override args = { file: Args.string({ required: true, description: "file, or - for standard input" }) };
  static override examples = ["<%= config.bin %> svid fetch --audience x | <%= config.bin %> svid show -"];

  async run(): Promise<unknown> {
    const { args } = await this.parse(SvidShow);
    const file = parseSvidFile(await readInput(args.file));
    const shown =
      file.kind === "x509"
        ? file.chain.map((der) => fieldsOf(parseCertificate(der)))
        : [file.kind === "jwt" ? jwtFields(file.token) : witFields(file.token)];
    const width = Math.max(...shown.flatMap((fields) => Object.keys(fields).map((name) => name.length)));
    for (const [index, fields] of shown.entries()) {
      this.log(
        file.kind !== "x509" ? `${file.kind.toUpperCase()}-SVID` : `certificate ${index + 1} of ${shown.length}`,
      );
      for (const [name, value] of Object.entries(fields)) {
        const text = typeof value === "string" ? value : JSON.stringify(value);
        this.log(`  ${name.padEnd(width)}  ${displayText(text, 300)}`);
      }
    }
    if (file.kind === "x509" && file.holdsKey) this.log("and a private key, which is not shown");
    return file.kind === "x509"
      ? { kind: "x509", certificates: shown, holdsKey: file.holdsKey }
      : { kind: file.kind, ...shown[0] };
  }
}

function fieldsOf(certificate: ParsedCertificate): Record<string, unknown> {
  const { x509, uris, basicConstraints, keyUsage, extendedKeyUsage } = certificate;
  const usages = Object.entries(keyUsage ?? {}).filter(([name, set]) => name !== "critical" && set === true);
  return {
    uri: uris.join(", ") || "none",
    "other names":
      (x509.subjectAltName ?? "")
        .split(", ")
        .filter((name) => !name.startsWith("URI:"))
        .join(", ") || "none",
    subject: x509.subject?.replaceAll("\n", ", ") || "empty",
    issuer: x509.issuer?.replaceAll("\n", ", ") || "empty",
    serial: x509.serialNumber.toLowerCase(),
    "not before": new Date(certificate.notBefore).toISOString(),
    "not after": new Date(certificate.notAfter).toISOString(),
    key: [x509.publicKey.asymmetricKeyType, x509.publicKey.asymmetricKeyDetails?.namedCurve].filter(Boolean).join(" "),
    "signing certificate": basicConstraints?.cA === true ? "yes" : "no",
    "key usage": usages.map(([name]) => name).join(", ") + (keyUsage?.critical === true ? " (critical)" : "") || "none",
    "extended key usage": (extendedKeyUsage ?? []).map((oid) => USAGES[oid] ?? oid).join(", ") || "none",
    "sha-256": x509.fingerprint256.replaceAll(":", "").toLowerCase(),
  };
}

const USAGES: Readonly<Record<string, string>> = {
  "1.3.6.1.5.5.7.3.1": "serverAuth",
  "1.3.6.1.5.5.7.3.2": "clientAuth",
};

function witFields(token: string): Record<string, unknown> {
  const { id, expiresAt, keyId, claims } = readWitSvid(token);
  return {
    "SPIFFE ID": id.toString(),
    "not after": expiresAt.toISOString(),
    "key id": keyId ?? "none",
    "key of the holder": claims.cnf ?? "none",
    "other claims": without(claims, ["sub", "exp", "cnf"]),
  };
}

function without(claims: Readonly<Record<string, unknown>>, shown: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(claims).filter(([name]) => !shown.includes(name)));
}

function jwtFields(token: string): Record<string, unknown> {
  const { id, audience, expiresAt, notBefore, keyId, claims } = readJwtSvid(token);
  return {
    "SPIFFE ID": id.toString(),
    audience: audience.join(", "),
    "not before": notBefore?.toISOString() ?? "not said",
    "not after": expiresAt.toISOString(),
    "key id": keyId ?? "none",
    "other claims": without(claims, ["sub", "aud", "exp", "nbf"]),
  };
}

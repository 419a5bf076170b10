import { constants, type SigningOptions } from "node:crypto";

/** A signature algorithm of JWT-SVID §2.1, as node:crypto performs it. */
export interface JwtAlgorithm {
  readonly name: string;
  readonly hash: string;
  readonly keyType: "EC" | "RSA";
  /** RFC 7518 §3.4: each ES algorithm belongs to one curve. */
  readonly curve: string | undefined;
  readonly options: SigningOptions;
}

function elliptic(name: string, hash: string, curve: string): JwtAlgorithm {
  return { name, hash, keyType: "EC", curve, options: { dsaEncoding: "ieee-p1363" } };
}

function rsa(name: string, hash: string): JwtAlgorithm {
  return { name, hash, keyType: "RSA", curve: undefined, options: { padding: constants.RSA_PKCS1_PADDING } };
}

/** RFC 7518 §3.5: the salt is as long as the hash. */
function rsaPss(name: string, hash: string): JwtAlgorithm {
  const options = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  return { name, hash, keyType: "RSA", curve: undefined, options };
}

const ALGORITHMS: ReadonlyMap<unknown, JwtAlgorithm> = new Map(
  [
    rsa("RS256", "sha256"),
    rsa("RS384", "sha384"),
    rsa("RS512", "sha512"),
    elliptic("ES256", "sha256", "P-256"),
    elliptic("ES384", "sha384", "P-384"),
    elliptic("ES512", "sha512", "P-521"),
    rsaPss("PS256", "sha256"),
    rsaPss("PS384", "sha384"),
    rsaPss("PS512", "sha512"),
  ].map((algorithm) => [algorithm.name, algorithm]),
);

/** The algorithm a header's `alg` names, or undefined for any that a JWT-SVID may not have (`none`, HS256, EdDSA …). JS-1. */
export function algorithmFor(alg: unknown): JwtAlgorithm | undefined {
  return ALGORITHMS.get(alg);
}

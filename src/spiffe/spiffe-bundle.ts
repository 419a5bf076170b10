import { BundleError } from "./bundle-error.js";
import { type Jwk, keysOf, parseJwks, publicJwtKey } from "./jwt-bundle.js";
import { x509AuthorityJwk, x509AuthorityOf } from "./x509-bundle.js";

/** A trust bundle with both kinds of keys, as trust domains publish it. SPIFFE Trust Domain and Bundle §4. */
export interface SpiffeBundle {
  /** DER roots. */
  readonly x509Authorities: readonly Buffer[];
  readonly jwtKeys: readonly Jwk[];
  /** Grows with each change; 64 bits, so a bigint: JavaScript's numbers lose digits above 2^53. */
  readonly sequence: bigint | undefined;
  readonly refreshHintSeconds: number | undefined;
}

/**
 * Reads a SPIFFE bundle. Elements with an unknown or missing `use` or `kty` are ignored, each for itself (§4.2).
 * Throws BundleError `bundle-malformed`, `bundle-certificate`, `bundle-sequence`, `bundle-refresh-hint`.
 */
export function parseSpiffeBundle(json: string): SpiffeBundle {
  const jwks = parseJwks(json);
  const roots = jwks.filter((jwk) => jwk.use === "x509-svid").map(x509AuthorityOf);
  return {
    x509Authorities: roots.filter((root) => root !== undefined),
    jwtKeys: keysOf(jwks, (jwk) => jwk.use === "jwt-svid"),
    ...readNumbers(json),
  };
}

/** The JSON of `bundle`. */
export function serialiseSpiffeBundle(bundle: SpiffeBundle): string {
  const keys = [...bundle.x509Authorities.map(x509AuthorityJwk), ...bundle.jwtKeys.map(publicJwtKey)];
  const numbers: string[] = [];
  if (bundle.sequence !== undefined) numbers.push(`"spiffe_sequence":${bundle.sequence}`);
  if (bundle.refreshHintSeconds !== undefined) numbers.push(`"spiffe_refresh_hint":${bundle.refreshHintSeconds}`);
  return `{${[`"keys":${JSON.stringify(keys)}`, ...numbers].join(",")}}`;
}

function readNumbers(json: string): Pick<SpiffeBundle, "sequence" | "refreshHintSeconds"> {
  const digits = topLevelNumbers(json);
  const sequence = digits.get("spiffe_sequence");
  const hint = digits.get("spiffe_refresh_hint");
  if (sequence !== undefined && !/^\d{1,20}$/.test(sequence)) {
    throw new BundleError("bundle-sequence", "spiffe_sequence is not a non-negative integer");
  }
  if (hint !== undefined && !/^\d{1,9}$/.test(hint)) {
    throw new BundleError("bundle-refresh-hint", "spiffe_refresh_hint is not a number of seconds");
  }
  return {
    sequence: sequence === undefined ? undefined : BigInt(sequence),
    refreshHintSeconds: hint === undefined ? undefined : Number(hint),
  };
}

/** ECMAScript's JSON.parse passes a primitive's source text to the reviver; TypeScript's types do not know it yet. */
type Reviver = (this: unknown, key: string, value: unknown, context?: { source?: string }) => unknown;

/** The source text of the members of the outermost object whose names begin with `spiffe_`. */
function topLevelNumbers(json: string): ReadonlyMap<string, string> {
  const found: { readonly holder: unknown; readonly key: string; readonly source: string }[] = [];
  const remember: Reviver = function (key, value, context) {
    if (key.startsWith("spiffe_")) found.push({ holder: this, key, source: context?.source ?? JSON.stringify(value) });
    return value;
  };
  const outermost: unknown = JSON.parse(json, remember as (key: string, value: unknown) => unknown);
  return new Map(found.filter(({ holder }) => holder === outermost).map(({ key, source }) => [key, source]));
}

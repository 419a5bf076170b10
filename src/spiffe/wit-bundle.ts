import { type Jwk, type JwkSet, parseJwks, publicJwtKey, publicKeyOf } from "./jwt-bundle.js";

/**
 * The keys for WIT-SVIDs in a JWK Set: those of `use: wit-svid` that have a `kid`, public members only and without their `use`, which has been looked
 * at. Incubating: WIT-SVID §6. Throws BundleError `bundle-malformed`.
 */
export function parseWitBundle(json: string): JwkSet {
  const usable = parseJwks(json).filter(
    (jwk) => jwk.use === "wit-svid" && typeof jwk.kid === "string" && publicKeyOf(jwk) !== undefined,
  );
  return { keys: usable.map(withoutUse) };
}

function withoutUse(jwk: Jwk): Jwk {
  const { use: _use, ...others } = publicJwtKey(jwk);
  return others;
}

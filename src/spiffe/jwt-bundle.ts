/** A public JSON Web Key. RFC 7517 §4. */
export interface Jwk {
  readonly kty: string;
  readonly kid?: string;
  readonly use?: string;
  readonly [member: string]: unknown;
}

/** The keys of one trust domain that sign its JWT-SVIDs. */
export interface JwkSet {
  readonly keys: readonly Jwk[];
}

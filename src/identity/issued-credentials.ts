import type { RevokedCertificate } from "./revocations.js";
import { canonicalSerial } from "./serial-number.js";

/** A credential that was issued and has not expired: what its holder can still do with it elsewhere. */
export interface IssuedCredential {
  readonly type: "x509" | "jwt" | "wit";
  /** Serial number in lower-case hex, or a token's `jti`; JWT-SVIDs have none. */
  readonly serial: string | undefined;
  /** Of a JWT-SVID; one entry stands for all tokens with the same audiences, and `notAfter` is the last one's. */
  readonly audience: readonly string[] | undefined;
  readonly notAfter: Date;
  /** Generation of authorities that signed it. */
  readonly authority: string;
}

/** Remembers what was issued to whom until it expires. In memory: the record knows it too, and for longer. */
export interface IssuedCredentials {
  add(id: string, credential: IssuedCredential, now: number): void;
  /** Unexpired at `now` (ms), the ones that live longest first. */
  of(id: string, now: number): readonly IssuedCredential[];
  /** Whether the certificate with this serial number (canonical) is among them; one that has expired may be too. */
  includes(id: string, serial: string): boolean;
  /** Whoever has the id from now on was issued nothing. */
  forget(id: string): void;
}

/** More different audience lists of one identity than this are remembered as one entry. */
const MAX_AUDIENCES = 100;
const OTHER_AUDIENCES = ["(others)"];

export function createIssuedCredentials(): IssuedCredentials {
  const byId = new Map<string, Map<string, IssuedCredential>>();

  return {
    add(id, credential, now) {
      const held = byId.get(id) ?? new Map<string, IssuedCredential>();
      byId.set(id, held);
      dropExpired(held, now);
      const key =
        credential.serial === undefined ? (credential.audience ?? []).join("\n") : keyOf(credential, credential.serial);
      if (credential.type === "jwt" && held.size >= MAX_AUDIENCES && !held.has(key)) {
        held.set(OTHER_AUDIENCES.join(), { ...credential, audience: OTHER_AUDIENCES });
        return;
      }
      // Latest last, so that what has expired is found at the front.
      held.delete(key);
      held.set(key, credential);
    },
    of(id, now) {
      const live = [...(byId.get(id)?.values() ?? [])].filter(({ notAfter }) => notAfter.getTime() > now);
      return live.sort((one, other) => other.notAfter.getTime() - one.notAfter.getTime());
    },
    includes: (id, serial) => byId.get(id)?.has(keyOf({ type: "x509" }, serial)) === true,
    forget: (id) => void byId.delete(id),
  };
}

/** The certificates among `credentials`, to be revoked. */
export function certificatesAmong(credentials: readonly IssuedCredential[]): readonly RevokedCertificate[] {
  return credentials.flatMap(({ type, serial, authority, notAfter }) =>
    type === "x509" && serial !== undefined ? [{ serial, authority, notAfter }] : [],
  );
}

/** No audience of a token begins like this. */
function keyOf({ type }: Pick<IssuedCredential, "type">, serial: string): string {
  return type === "x509" ? `\n${canonicalSerial(serial)}` : serial;
}

/** Stops at the first that is still valid: entries are in the order of their issue, and what is left behind is dropped with a later one. */
function dropExpired(held: Map<string, IssuedCredential>, now: number): void {
  for (const [key, { notAfter }] of held) {
    if (notAfter.getTime() > now) return;
    held.delete(key);
  }
}

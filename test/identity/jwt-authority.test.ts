import { createLocalJWKSet, jwtVerify } from "jose";
import { describe, expect, it } from "vitest";
import { createJwtAuthority, restoreJwtAuthority } from "../../src/identity/jwt-authority.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";

const trustDomain = TrustDomain.parse("shop.local");
const id = SpiffeId.parse("spiffe://shop.local/agents/billing");
const now = Date.parse("2026-11-22T12:00:00Z");
const validity = { trustDomain, notBefore: new Date(now - 10_000), notAfter: new Date(now + 3_600_000) };
const authority = createJwtAuthority(validity);
const request = { id, audiences: ["orders"], lifetimeSeconds: 300 };

describe("JWT authority, with jose as the judge", () => {
  it("JS-1 JS-2 JS-3 JS-4 JS-5 JR-6 a token holds exactly what the standard asks for, and verifies", async () => {
    const { token, expiresAt } = authority.issue({ ...request, audiences: ["orders", "payments"] }, now);
    // jose knows no use but sig and enc; everything else of the key is as the bundle has it.
    const keys = createLocalJWKSet({ keys: [{ ...authority.publicJwk, use: "sig" }] });
    const { protectedHeader, payload } = await jwtVerify(token, keys, {
      audience: "payments",
      currentDate: new Date(now),
    });
    expect(protectedHeader).toEqual({ alg: "ES256", kid: authority.keyId, typ: "JWT" });
    expect(payload).toEqual({ sub: String(id), aud: ["orders", "payments"], iat: now / 1000, exp: now / 1000 + 300 });
    expect(expiresAt).toEqual(new Date(now + 300_000));
    const others = createLocalJWKSet({
      keys: [{ ...createJwtAuthority(validity).publicJwk, use: "sig", kid: authority.keyId }],
    });
    await expect(jwtVerify(token, others, { currentDate: new Date(now) })).rejects.toThrow("signature");
  });

  it("JS-7 JR-7 JR-8 the bundle's entry has kid and use, and nothing private; the kid follows from the key", () => {
    expect(Object.keys(authority.publicJwk).sort()).toEqual(["alg", "crv", "kid", "kty", "use", "x", "y"]);
    expect(authority.publicJwk).toMatchObject({ kty: "EC", crv: "P-256", use: "jwt-svid", kid: authority.keyId });
    const restored = restoreJwtAuthority({ ...validity, privateKeyPkcs8: authority.privateKeyPkcs8 });
    expect(restored.publicJwk).toEqual(authority.publicJwk);
    expect(createJwtAuthority(validity).keyId).not.toBe(authority.keyId);
  });

  it("a token ends no later than its authority, and none is signed outside its life", () => {
    expect(authority.issue(request, now + 3_500_000).expiresAt).toEqual(validity.notAfter);
    for (const at of [now - 11_000, now + 3_600_000]) {
      expect(() => authority.issue(request, at)).toThrow(expect.objectContaining({ code: "authority-expired" }));
    }
  });

  it("refuses foreign identities, the trust domain itself and empty audience lists", () => {
    expect(authority.issue(request, now).token).toMatch(/^ey/);
    for (const wrong of ["spiffe://other.local/a", "spiffe://shop.local"]) {
      expect(() => authority.issue({ ...request, id: SpiffeId.parse(wrong) }, now)).toThrow(
        expect.objectContaining({ code: "identity-foreign" }),
      );
    }
    expect(() => authority.issue({ ...request, audiences: [] }, now)).toThrow(
      expect.objectContaining({ code: "audience-missing" }),
    );
  });
});

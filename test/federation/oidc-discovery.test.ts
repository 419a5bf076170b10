import { createRemoteJWKSet, errors, jwtVerify } from "jose";
import { describe, expect, it, onTestFinished } from "vitest";
import { openOidcDiscovery } from "../../src/federation/oidc-discovery.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { verifies } from "../requirements/verifies.js";
import { freePort } from "./free-port.js";
import { createTrustDomain, type TestTrustDomain, temporaryFolder } from "./trust-domain.js";
import { createWebAuthority } from "./web-certificates.js";

async function discover(
  shop: TestTrustDomain,
  path = "",
  changes: { port?: number; web?: { certificate: string; key: string } } = {},
) {
  const scheme = changes.web === undefined ? "http" : "https";
  const port = changes.port ?? (await freePort());
  const issuer = `${scheme}://127.0.0.1:${port}${path}`;
  const server = await openOidcDiscovery({
    config: { listen: { host: "127.0.0.1", port }, issuer, web: changes.web },
    ours: shop.trustDomain,
    bundles: shop.bundles,
    clock: createTestClock(Date.now()),
    onProblem: (thrown) => shop.problems.push(thrown),
  });
  onTestFinished(() => server.close());
  return issuer;
}

function tokenOf(shop: TestTrustDomain, issuer: string | undefined): string {
  const id = shop.endpointId;
  const request = { id, audiences: ["https://api.example"], lifetimeSeconds: 300, issuer };
  return shop.authority.active.jwt.issue(request, Date.now()).token;
}

describe("OpenID Connect discovery", () => {
  it(`${verifies("OD-1")} serves exactly the two documents of SPIRE's provider, below the issuer's path`, async () => {
    const shop = createTrustDomain("shop.local");
    for (const path of ["", "/tenants/shop"]) {
      const issuer = await discover(shop, path);
      const found = await fetch(`${issuer}/.well-known/openid-configuration`);
      expect(found.headers.get("content-type")).toBe("application/json");
      expect(await found.json()).toEqual({
        issuer,
        jwks_uri: `${issuer}/keys`,
        authorization_endpoint: "",
        response_types_supported: ["id_token"],
        subject_types_supported: [],
        id_token_signing_alg_values_supported: ["RS256", "ES256", "ES384"],
      });
      const keys = await fetch(`${issuer}/keys`);
      expect(keys.headers.get("cache-control")).toBe("no-cache, no-store, must-revalidate");
      const { use: _use, ...publicJwk } = shop.authority.active.jwt.publicJwk;
      expect(await keys.json()).toEqual({ keys: [publicJwk] });
      for (const other of ["/", "/keys/", "/keys?x=1", "/.well-known/", "/bundle"]) {
        expect((await fetch(`${issuer}${other}`)).status, other).toBe(404);
      }
      expect((await fetch(`${issuer}/keys`, { method: "POST" })).status).toBe(405);
    }
  });

  it(`${verifies("OD-1")} lets jose verify a token, across rotations, and refuse those of others`, async () => {
    const shop = createTrustDomain("shop.local");
    const issuer = await discover(shop);
    const verify = (token: string, audience = "https://api.example") =>
      // A verifier that has just started: it knows nothing but the issuer.
      jwtVerify(token, createRemoteJWKSet(new URL(`${issuer}/keys`)), { issuer, audience });
    const { payload } = await verify(tokenOf(shop, issuer));
    expect(payload).toMatchObject({ iss: issuer, sub: shop.endpointId.toString(), aud: ["https://api.example"] });
    const before = tokenOf(shop, issuer);
    shop.authority.prepare();
    shop.authority.activate({ hurried: true });
    await verify(before);
    await verify(tokenOf(shop, issuer));
    const impostor = createTrustDomain("shop.local");
    await expect(verify(tokenOf(impostor, issuer))).rejects.toThrow(errors.JWKSNoMatchingKey);
    await expect(verify(tokenOf(shop, "https://other.example"))).rejects.toThrow(errors.JWTClaimValidationFailed);
    await expect(verify(tokenOf(shop, undefined))).rejects.toThrow(errors.JWTClaimValidationFailed);
    await expect(verify(tokenOf(shop, issuer), "https://else")).rejects.toThrow(errors.JWTClaimValidationFailed);
  });

  it("speaks TLS with a certificate of the user's", async () => {
    const shop = createTrustDomain("shop.local");
    const web = await createWebAuthority();
    const files = await web.issue(temporaryFolder());
    const issuer = await discover(shop, "", { web: files });
    const { Agent, fetch: fetchWith } = await import("undici");
    const dispatcher = new Agent({ connect: { ca: web.pem } });
    onTestFinished(() => dispatcher.close());
    expect((await fetchWith(`${issuer}/keys`, { dispatcher })).status).toBe(200);
    await expect(fetchWith(`${issuer}/keys`)).rejects.toThrow();
  });
});

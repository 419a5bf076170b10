import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import { fetchBundle } from "../../src/federation/bundle-client.js";
import { openOidcDiscovery } from "../../src/federation/oidc-discovery.js";
import { systemClock } from "../../src/platform/clock.js";
import { parseSpiffeBundle, serialiseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { freePort } from "../federation/free-port.js";
import { codeOf, createTrustDomain, type TestTrustDomain, temporaryFolder } from "../federation/trust-domain.js";
import { verifies } from "../requirements/verifies.js";
import { prepareGo, preparePython, startWorkload } from "./foreign-workloads.js";
import { startTrustDomain } from "./trust-domain-under-test.js";

const run = promisify(execFile);
const go = await prepareGo("go-federation");
const python = await preparePython();
for (const [name, prepared] of Object.entries({ "go-spiffe": go, PyJWT: python })) {
  if ("missing" in prepared) process.stderr.write(`SKIPPED: federation with ${name}: ${prepared.missing}\n`);
}

describe.skipIf("missing" in go)("federation with go-spiffe", () => {
  const program = "workload" in go ? go.workload : { exePath: "", command: [] };

  it(`${verifies("FD-1", "FD-4", "TB-2")} it fetches our bundle with https_spiffe, and refuses another endpoint ID or authority`, async () => {
    const shop = createTrustDomain("shop.local");
    const { url } = await shop.serve();
    const file = join(temporaryFolder(), "shop.json");
    const fetchAs = async (id: string) => {
      const fetching = startWorkload(program, "/nowhere", "fetch-bundle", url, id, file);
      try {
        return await fetching.next();
      } finally {
        await fetching.stop();
      }
    };
    const bundle = shop.published.current();
    writeFileSync(file, serialiseSpiffeBundle(bundle));
    expect(await fetchAs(shop.endpointId.toString())).toEqual({
      ...{ trustDomain: "shop.local", x509: 1, jwt: 1, hint: 300 },
      sequence: Number(bundle.sequence),
    });
    expect(await fetchAs("spiffe://shop.local/somebody-else")).toHaveProperty("refused");
    writeFileSync(file, serialiseSpiffeBundle(createTrustDomain("shop.local").published.current()));
    expect(await fetchAs(shop.endpointId.toString())).toHaveProperty("refused");
  });

  it(`${verifies("FD-4", "TB-2")} we fetch what its handler serves, with every digit of the sequence`, async () => {
    const trustDomain = await startTrustDomain({ "agents/go-federation": { exePath: program.exePath } });
    onTestFinished(() => trustDomain.close());
    const serving = startWorkload(program, trustDomain.socketPath, "serve-bundle");
    onTestFinished(() => serving.stop().then(() => {}));
    const { url, bundle } = (await serving.next()) as { url: string; bundle: string };
    const { x509Authorities } = parseSpiffeBundle(bundle);
    const fetchAs = (id: string) =>
      fetchBundle(url, {
        authentication: { profile: "https_spiffe", endpointId: SpiffeId.parse(id), authorities: x509Authorities },
        now: () => Date.now(),
      });
    const fetched = await fetchAs("spiffe://shop.local/agents/go-federation");
    expect(fetched).toEqual(parseSpiffeBundle(bundle));
    expect(fetched.sequence).toBe(2n ** 63n + 1n);
    expect(await codeOf(() => fetchAs("spiffe://shop.local/agents/else"))).toBe("endpoint-untrusted");
  });
});

const VERIFY = `import sys, json, urllib.request, jwt
issuer, audience, token = sys.argv[1:]
found = json.load(urllib.request.urlopen(issuer + "/.well-known/openid-configuration"))
assert found["issuer"] == issuer
key = jwt.PyJWKClient(found["jwks_uri"]).get_signing_key_from_jwt(token)
try:
    algorithms = found["id_token_signing_alg_values_supported"]
    print(jwt.decode(token, key, algorithms=algorithms, audience=audience, issuer=issuer)["sub"])
except jwt.InvalidTokenError as error:
    print(type(error).__name__)
`;

describe.skipIf("missing" in python)("OpenID Connect discovery with PyJWT", () => {
  it(`${verifies("OD-1")} it finds the keys, accepts a token, and refuses it for another audience or issuer`, async () => {
    const interpreter = "workload" in python ? (python.workload.command[0] ?? "") : "";
    const shop = createTrustDomain("shop.local");
    const port = await freePort();
    const issuer = `http://127.0.0.1:${port}`;
    const server = await openOidcDiscovery({
      config: { listen: { host: "127.0.0.1", port }, issuer, web: undefined },
      ...{ ours: shop.trustDomain, bundles: shop.bundles, clock: systemClock, onProblem: () => {} },
    });
    onTestFinished(() => server.close());
    const verdict = async (token: string, audience: string) =>
      (await run(interpreter, ["-c", VERIFY, issuer, audience, token])).stdout.trim();
    expect(await verdict(tokenOf(shop, issuer), "https://api.example")).toBe(shop.endpointId.toString());
    expect(await verdict(tokenOf(shop, issuer), "https://else.example")).toBe("InvalidAudienceError");
    expect(await verdict(tokenOf(shop, "https://other.example"), "https://api.example")).toBe("InvalidIssuerError");
  });
});

function tokenOf(shop: TestTrustDomain, issuer: string): string {
  const request = { id: shop.endpointId, audiences: ["https://api.example"], lifetimeSeconds: 300, issuer };
  return shop.authority.active.jwt.issue(request, Date.now()).token;
}

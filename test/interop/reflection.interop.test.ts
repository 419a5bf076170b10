import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { verifies } from "../requirements/verifies.js";
import { identity, type RunningApi, runApi } from "../workload-api/running-api.js";
import { prepareGrpcurl } from "./grpcurl.js";

const prepared = await prepareGrpcurl();
if ("missing" in prepared) process.stderr.write(`SKIPPED: interop with grpcurl: ${prepared.missing}\n`);

let running: RunningApi;
beforeAll(async () => {
  running = await runApi({ identities: [identity("agents/tool")] });
});
afterAll(() => running.close());

function grpcurl(flags: readonly string[], ...what: readonly string[]): Promise<string> {
  if ("missing" in prepared) throw new Error(prepared.missing);
  return prepared.grpcurl(running.path, flags, ...what);
}

describe.skipIf("missing" in prepared)("unmodified grpcurl, without any proto file", () => {
  it(`${verifies("EP-7", "EP-6")} lists the services and describes each`, async () => {
    const services = (await grpcurl([], "list")).trim().split("\n");
    expect(services).toContain("SpiffeWorkloadAPI");
    expect(services).toContain("envoy.service.secret.v3.SecretDiscoveryService");
    for (const service of services)
      expect(await grpcurl([], "describe", service)).toContain(`${service} is a service:`);
    expect(await grpcurl([], "describe", "X509SVID")).toContain("bytes x509_svid_key = 3;");
  });

  it(`${verifies("EP-8")} finds the standard's methods and no other`, async () => {
    const methods = (await grpcurl([], "list", "SpiffeWorkloadAPI")).trim().split("\n");
    expect(methods.map((method) => method.replace("SpiffeWorkloadAPI.", "")).sort()).toEqual([
      "FetchJWTBundles",
      "FetchJWTSVID",
      "FetchWITBundles",
      "FetchWITSVID",
      "FetchX509Bundles",
      "FetchX509SVID",
      "ValidateJWTSVID",
    ]);
  });

  it(`${verifies("EP-4")} calls by what it learned: with the header it gets a token, without it nothing`, async () => {
    const body = ["-d", '{"audience":["a"]}'];
    const method = "SpiffeWorkloadAPI/FetchJWTSVID";
    const answer = JSON.parse(await grpcurl(["-H", "workload.spiffe.io: true", ...body], method));
    expect(answer.svids).toMatchObject([{ spiffeId: "spiffe://shop.local/agents/tool" }]);
    await expect(grpcurl(body, method)).rejects.toThrow("InvalidArgument");
  });
});

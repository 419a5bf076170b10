import { describe, expect, it } from "vitest";
import { workloadEndpoint } from "../../../src/client/spiffe/index.js";
import { codeOf } from "../../../src/coded-error.js";
import { verifies } from "../../requirements/verifies.js";

function codeFor(address: string | undefined, environment = {}): string {
  try {
    return workloadEndpoint(address, environment).target;
  } catch (thrown) {
    return codeOf(thrown);
  }
}

describe("the endpoint's address", () => {
  it(`${verifies("EP-14")} comes from SPIFFE_ENDPOINT_SOCKET when none is configured`, () => {
    const environment = { SPIFFE_ENDPOINT_SOCKET: "unix:///run/a.sock" };
    expect(workloadEndpoint(undefined, environment)).toEqual({
      address: "unix:///run/a.sock",
      target: "unix:/run/a.sock",
    });
    expect(codeFor("unix:///run/b.sock", environment)).toBe("unix:/run/b.sock");
    expect(codeFor(undefined)).toBe("workload-api-address-missing");
    expect(codeFor(undefined, { SPIFFE_ENDPOINT_SOCKET: "" })).toBe("workload-api-address-missing");
  });

  it.each([
    ["unix:/run/a.sock", "unix:/run/a.sock"],
    ["unix:///run/a.sock", "unix:/run/a.sock"],
    ["unix:///run/with%20space.sock", "unix:/run/with space.sock"],
    ["UNIX:///run/a.sock", "unix:/run/a.sock"],
    ["tcp://127.0.0.1:8000", "ipv4:127.0.0.1:8000"],
    ["tcp://[::1]:8000", "ipv6:[::1]:8000"],
  ])(`${verifies("EP-14")} %s is accepted`, (address, target) => {
    expect(codeFor(address)).toBe(target);
  });

  it.each([
    "unix://host/p",
    "unix://user@/p",
    "unix:///p?x",
    "unix:///p#x",
    "unix:///p?",
    "unix:relative",
    "unix:",
    "unix:///",
    "unix:///%zz",
    "unix:///a%00b",
    "unix:///a b",
    "tcp://localhost:1",
    "tcp://1.2.3.4",
    "tcp://1.2.3.4:",
    "tcp://1.2.3.4:0",
    "tcp://1.2.3.4:65536",
    "tcp://1.2.3.4:1/",
    "tcp://1.2.3.4:1/foo",
    "tcp://1.2.3.4:1?x",
    "tcp://u@1.2.3.4:1",
    "tcp://::1:80",
    "tcp://[1.2.3.4]:80",
    "tcp://[fe80::1%eth0]:80",
    "tcp:1.2.3.4:1",
    "http://127.0.0.1:1",
    "npipe:spire",
    "/run/a.sock",
  ])(`${verifies("EP-14")} %s is refused`, (address) => {
    expect(codeFor(address)).toBe("workload-api-address-invalid");
  });
});

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import type { RequiredFacts } from "../../src/config/config.js";
import { verifies } from "../requirements/verifies.js";
import {
  type ForeignWorkload,
  type Prepared,
  prepareGo,
  prepareJava,
  preparePython,
  prepareRust,
  type RunningWorkload,
  startWorkload,
} from "./foreign-workloads.js";
import { authoritiesOf, opensslVerifies, serialOf } from "./openssl.js";
import { startTrustDomain, type TrustDomainUnderTest } from "./trust-domain-under-test.js";

// Programs by different executables, so that the kernel tells them apart and each has an identity of its own.
const go = await prepareGo("go-payments");
const otherGo = await prepareGo("go-ledger");
const python = await preparePython();
const java = await prepareJava();
const rust = await prepareRust();

for (const [name, prepared] of Object.entries({
  "go-spiffe": go,
  "py-spiffe": python,
  "java-spiffe": java,
  "the Rust spiffe crate": rust,
})) {
  if ("missing" in prepared) process.stderr.write(`SKIPPED: interop with ${name}: ${prepared.missing}\n`);
}

const ids = {
  go: "spiffe://shop.local/agents/go-payments",
  otherGo: "spiffe://shop.local/agents/go-ledger",
  python: "spiffe://shop.local/agents/python",
  java: "spiffe://shop.local/agents/java",
  rust: "spiffe://shop.local/agents/rust",
};

let trustDomain: TrustDomainUnderTest;
beforeAll(async () => {
  trustDomain = await startTrustDomain({
    ...factsOf("agents/go-payments", go),
    ...factsOf("agents/go-ledger", otherGo),
    ...factsOf("agents/python", python),
    ...factsOf("agents/java", java),
    ...factsOf("agents/rust", rust),
  });
});
afterAll(() => trustDomain.close());

const running: RunningWorkload[] = [];
afterEach(async () => {
  for (const workload of running.splice(0)) await workload.stop();
});

function factsOf(name: string, prepared: Prepared): Record<string, RequiredFacts> {
  if ("missing" in prepared) return {};
  const { exePath, exeSha256 } = prepared.workload;
  return { [name]: { exePath, ...(exeSha256 === undefined ? {} : { exeSha256 }) } };
}

function workloadOf(prepared: Prepared): ForeignWorkload {
  if ("missing" in prepared) throw new Error(prepared.missing);
  return prepared.workload;
}

function start(prepared: Prepared, ...args: readonly string[]): RunningWorkload {
  const workload = startWorkload(workloadOf(prepared), trustDomain.socketPath, ...args);
  running.push(workload);
  return workload;
}

function isMissing(...prepared: readonly Prepared[]): boolean {
  return prepared.some((one) => "missing" in one);
}

describe.each([
  { library: "go-spiffe", prepared: go, id: ids.go, hint: { hint: "agents/go-payments" } },
  // py-spiffe does not show hints.
  { library: "py-spiffe", prepared: python, id: ids.python, hint: {} },
  { library: "java-spiffe", prepared: java, id: ids.java, hint: { hint: "agents/java" } },
  { library: "Rust spiffe crate", prepared: rust, id: ids.rust, hint: { hint: "agents/rust" } },
])("unmodified $library", ({ prepared, id, hint }) => {
  it.skipIf(isMissing(prepared))(`${verifies("EP-3", "XR-1", "XR-3", "XR-4")} fetches its X.509-SVIDs`, async () => {
    const answer = await start(prepared, "fetch").next();
    expect(answer).toMatchObject({ svids: [{ id, ...hint }], default: id });
    for (const svid of z.array(z.unknown()).parse(answer.svids)) await opensslVerifies(svid);
  });

  it.skipIf(isMissing(prepared))(
    `${verifies("ST-1", "ST-3", "XR-5")} watches them through three rotations of SVID and authority, each chain good for openssl`,
    async () => {
      const watch = start(prepared, "watch");
      const first = await watch.next();
      const rotations = [
        { rotate: () => trustDomain.rotateSvids(), authorities: 0 },
        { rotate: () => trustDomain.rotateAuthority(), authorities: 1 },
        { rotate: () => trustDomain.rotateSvids(), authorities: 1 },
      ];
      const updates = [first];
      for (const { rotate, authorities } of rotations) {
        rotate();
        const update = await watch.next();
        expect(authoritiesOf(update)).toBe(authoritiesOf(first) + authorities);
        updates.push(update);
      }
      expect(new Set(updates.map(serialOf)).size).toBe(4);
      for (const update of updates) {
        expect(update).toMatchObject({ id, ...hint });
        await opensslVerifies(update);
      }
      // The same openssl does not take a new leaf for one of the authorities before it.
      const { authorities } = first;
      await expect(opensslVerifies({ ...updates[3], authorities })).rejects.toThrow("verify");
      expect(await watch.stop()).toBe(0);
    },
  );

  it.skipIf(isMissing(prepared))(
    `${verifies("JR-2", "JR-5", "JR-8", "JR-12")} fetches a JWT-SVID; the API and the library both accept it`,
    async () => {
      const answer = await start(prepared, "jwt", "payments").next();
      expect(answer).toEqual({ id, validated: id, local: id, audience: ["payments"], refused: true });
    },
  );

  it.skipIf(isMissing(prepared))(`${verifies("XR-11", "JR-7")} fetches the bundles`, async () => {
    const answer = await start(prepared, "bundles").next();
    expect(answer).toEqual({
      x509: { "shop.local": expect.any(Number) },
      jwt: { "shop.local": expect.any(Number) },
    });
    expect(answer.jwt).toEqual(answer.x509);
  });
});

describe.each([
  { pair: "go to go", client: go, server: otherGo, clientId: ids.go, serverId: ids.otherGo },
  { pair: "python to go", client: python, server: go, clientId: ids.python, serverId: ids.go },
  { pair: "go to python", client: go, server: python, clientId: ids.go, serverId: ids.python },
  { pair: "java to go", client: java, server: go, clientId: ids.java, serverId: ids.go },
  { pair: "go to java", client: go, server: java, clientId: ids.go, serverId: ids.java },
  { pair: "java to rust", client: java, server: rust, clientId: ids.java, serverId: ids.rust },
  { pair: "rust to go", client: rust, server: go, clientId: ids.rust, serverId: ids.go },
  { pair: "go to rust", client: go, server: rust, clientId: ids.go, serverId: ids.rust },
])("mutual TLS, $pair", ({ client, server, clientId, serverId }) => {
  it.skipIf(isMissing(client, server))("each knows the other by its SPIFFE ID", async () => {
    const serving = start(server, "serve", clientId);
    const { port } = await serving.next();
    const answer = await start(client, "dial", `127.0.0.1:${port}`, serverId).next();
    expect(answer).toEqual({ peer: serverId, heard: `hello ${clientId}\n` });
    expect(await serving.next()).toEqual({ peer: clientId });
  });

  it.skipIf(isMissing(client, server))("each refuses the other when it wants somebody else", async () => {
    const serving = start(server, "serve", "spiffe://shop.local/agents/nobody");
    const { port } = await serving.next();
    await expect(start(client, "dial", `127.0.0.1:${port}`, serverId).next()).rejects.toThrow();
    expect(await serving.next()).toHaveProperty("refused");

    const willing = start(server, "serve", clientId);
    const { port: willingPort } = await willing.next();
    const wrongServer = start(client, "dial", `127.0.0.1:${willingPort}`, "spiffe://shop.local/agents/nobody");
    await expect(wrongServer.next()).rejects.toThrow();
  });
});

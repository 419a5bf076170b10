/** A Workload API with many identities, as a process of its own, so that what is measured is the daemon's side alone. Speaks with its parent by IPC. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { createCallerAttestor } from "../../../src/attestation/attestor.js";
import { executableDigests } from "../../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../../src/attestation/launches.js";
import { openAuditLog } from "../../../src/audit/chained-log.js";
import { createTrustBundles } from "../../../src/identity/bundles.js";
import { createIssuedCredentials } from "../../../src/identity/issued-credentials.js";
import { createMemoryKeyStore } from "../../../src/identity/key-store.js";
import { createIdentityRegistry } from "../../../src/identity/registry.js";
import { createSvidKeeper } from "../../../src/identity/svid-keeper.js";
import { createTrustDomainAuthority } from "../../../src/identity/trust-domain-authority.js";
import { createWitKeeper } from "../../../src/identity/wit-keeper.js";
import { systemClock as clock } from "../../../src/platform/clock.js";
import { currentPlatform } from "../../../src/platform/index.js";
import { SpiffeWorkloadAPIService } from "../../../src/workload-api/generated/workload.js";
import { createWorkloadApi } from "../../../src/workload-api/server.js";
import { identity, trustDomain } from "../../workload-api/running-api.js";

const count = Number(process.argv[2]);
const directory = mkdtempSync(join(tmpdir(), "agentid-bench-"));
const audit = await openAuditLog(join(directory, "audit"), { clock });
const authority = createTrustDomainAuthority({
  ...{ trustDomain, clock, audit },
  lifetimeSeconds: () => 86_400,
  keyStore: createMemoryKeyStore(),
});
// The first is the parent's; nobody here has the groups of the others.
const others = Array.from({ length: count - 1 }, (_, index) => identity(`agents/a${index}`, { gid: 100_000 + index }));
const registry = createIdentityRegistry({ identities: [identity("agents/bench"), ...others] }, { identities: {} });
const lifetimes = () => ({ x509Seconds: 3_600, jwtSeconds: 300, caSeconds: 86_400 });
const issued = createIssuedCredentials();
const keeper = createSvidKeeper({ authority, registry, lifetimes, issued, clock, audit });
const witKeeper = createWitKeeper({ authority, registry, lifetimes, issued, clock, audit });
const bundles = createTrustBundles(authority);
const platform = currentPlatform();
const digests = executableDigests();
const launches = createLaunchRegistry({ platform, digests });
const attestor = createCallerAttestor({ platform, launches, digests });
const api = createWorkloadApi({
  ...{ trustDomain, attestor, registry, svids: keeper, bundles, jwtIssuer: keeper, jwtBundles: bundles },
  ...{ witSvids: witKeeper, witBundles: bundles, audit, clock },
});
const path = join(directory, "workload.sock");
await api.listen(path);

/** The same call over the same transport with nothing behind it: what grpc-js costs alone. */
const bare = new Server();
bare.addService(
  { fetchJwtsvid: SpiffeWorkloadAPIService.fetchJwtsvid },
  { fetchJwtsvid: (_call: unknown, callback: (error: null, answer: unknown) => void) => callback(null, ANSWER) },
);
const ANSWER = { svids: [{ spiffeId: "spiffe://shop.local/agents/bench", svid: "x".repeat(330), hint: "" }] };
const barePath = join(directory, "bare.sock");
await new Promise<void>((resolve, reject) =>
  bare.bindAsync(`unix:${barePath}`, ServerCredentials.createInsecure(), (error) =>
    error ? reject(error) : resolve(),
  ),
);

/** Names of the identities whose SVID was replaced since the last rotation. */
const rotated = new Set<string>();
keeper.onChange(({ change, identity: { name } }) => change === "rotated" && rotated.add(name));

const delay = monitorEventLoopDelay({ resolution: 1 });
const RESOLUTION_MS = 1;
/** Processor time of this thread between two looks: a block as long as it takes by itself, whatever else the machine does. */
let worked = process.threadCpuUsage();
let longestWorkMs = 0;
setInterval(() => {
  const { user, system } = process.threadCpuUsage(worked);
  worked = process.threadCpuUsage();
  longestWorkMs = Math.max(longestWorkMs, (user + system) / 1_000);
}, RESOLUTION_MS).unref();

const commands = {
  async issueAll() {
    for (const [index, { id }] of registry.identities.entries()) {
      keeper.x509Svid(id);
      if (index % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  },
  rotate() {
    delay.enable();
    delay.reset();
    longestWorkMs = 0;
    rotated.clear();
    authority.prepare();
    authority.activate({ hurried: true });
    return authority.active.keyId;
  },
  report() {
    const status = readFileSync("/proc/self/status", "latin1");
    const kilobytes = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0);
    return {
      rssMb: Math.round(kilobytes("VmRSS") / 1024),
      peakMb: Math.round(kilobytes("VmHWM") / 1024),
      blockedMs: Math.max(0, delay.max / 1e6 - RESOLUTION_MS),
      longestWorkMs,
      replaced: rotated.size,
      streams: api.open.streams,
    };
  },
  processorTime: () => process.cpuUsage(),
  async stop() {
    await api.close();
    bare.forceShutdown();
    keeper.close();
    witKeeper.close();
    authority.close();
    launches.close();
    await audit.close();
    rmSync(directory, { recursive: true, force: true });
    setImmediate(() => process.disconnect?.());
  },
};
const tell = (message: unknown) => process.send?.(message);
process.on("message", async (name: keyof typeof commands) => tell({ name, answer: await commands[name]() }));
tell({ name: "ready", answer: { path, barePath } });

import { once } from "node:events";
import { realpathSync } from "node:fs";
import type { AddressInfo, Server } from "node:net";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  connectTls,
  createTlsServer,
  createX509Source,
  oneOf,
  peerOf,
  type X509Source,
} from "../../src/client/spiffe/index.js";
import { codeOf } from "../../src/coded-error.js";
import { prepareGo, type RunningWorkload, startWorkload } from "./foreign-workloads.js";
import { startTrustDomain, type TrustDomainUnderTest } from "./trust-domain-under-test.js";

const go = await prepareGo("go-payments");
if ("missing" in go) process.stderr.write(`SKIPPED: our client with go-spiffe: ${go.missing}\n`);

const GO = "spiffe://shop.local/agents/go-payments";
const OURS = "spiffe://shop.local/agents/node";
const NOBODY = "spiffe://shop.local/agents/nobody";

describe.skipIf("missing" in go)("our client and an unmodified go-spiffe", () => {
  let trustDomain: TrustDomainUnderTest;
  let source: X509Source;
  const servers: Server[] = [];
  const workloads: RunningWorkload[] = [];

  beforeAll(async () => {
    trustDomain = await startTrustDomain({
      "agents/go-payments": { exePath: "workload" in go ? go.workload.exePath : "" },
      "agents/node": { exePath: realpathSync(process.execPath) },
    });
    source = await createX509Source({ socketPath: `unix://${trustDomain.socketPath}` });
  });
  afterEach(async () => {
    for (const server of servers.splice(0)) server.close();
    for (const workload of workloads.splice(0)) await workload.stop();
  });
  afterAll(async () => {
    source.close();
    await trustDomain.close();
  });

  function start(...args: readonly string[]): RunningWorkload {
    if ("missing" in go) throw new Error(go.missing);
    const workload = startWorkload(go.workload, trustDomain.socketPath, ...args);
    workloads.push(workload);
    return workload;
  }

  async function serve(wanted: string): Promise<{ address: string; refused: Error[] }> {
    const refused: Error[] = [];
    const options = { authorize: oneOf(wanted), onRefused: (reason: Error) => refused.push(reason) };
    const server = createTlsServer(source, options, (socket, peer) => socket.end(`hello ${peer.id}\n`));
    servers.push(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, refused };
  }

  async function dial(port: number, wanted: string): Promise<{ peer: string; heard: string | undefined }> {
    const socket = await connectTls(source, { host: "127.0.0.1", port, authorize: oneOf(wanted) });
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    const { value } = await lines.next();
    socket.destroy();
    return { peer: String(peerOf(socket)?.id), heard: value };
  }

  it("we serve, it dials, and each knows the other, through rotations of SVIDs and authority", async () => {
    const { address } = await serve(GO);
    expect(await start("dial", address, OURS).next()).toEqual({ peer: OURS, heard: `hello ${GO}\n` });
    for (const rotate of [() => trustDomain.rotateSvids(), () => trustDomain.rotateAuthority()]) {
      const { serial } = source.svid();
      const renewed = new Promise<void>((resolve) => {
        const forget = source.onUpdate(() => {
          if (source.svid().serial === serial) return;
          forget();
          resolve();
        });
      });
      rotate();
      await renewed;
      expect(await start("dial", address, OURS).next()).toEqual({ peer: OURS, heard: `hello ${GO}\n` });
    }
  });

  it("it serves, we dial, and each knows the other, through rotations of SVIDs and authority", async () => {
    const serving = start("serve", OURS);
    const port = Number((await serving.next()).port);
    expect(await dial(port, GO)).toEqual({ peer: GO, heard: `hello ${OURS}` });
    expect(await serving.next()).toEqual({ peer: OURS });
    trustDomain.rotateAuthority();
    expect(await dial(port, GO)).toEqual({ peer: GO, heard: `hello ${OURS}` });
    expect(await serving.next()).toEqual({ peer: OURS });
  });

  it("each refuses the other when it wants somebody else", async () => {
    const unwilling = await serve(NOBODY);
    await expect(start("dial", unwilling.address, OURS).next()).rejects.toThrow();
    expect(unwilling.refused.map(codeOf)).toEqual(["peer-unauthorized"]);
    const willing = await serve(GO);
    await expect(start("dial", willing.address, NOBODY).next()).rejects.toThrow();

    const foreign = start("serve", NOBODY);
    await expect(dial(Number((await foreign.next()).port), GO)).rejects.toThrow(/alert/);
    expect(await foreign.next()).toHaveProperty("refused");
    const open = start("serve", OURS);
    await expect(dial(Number((await open.next()).port), NOBODY)).rejects.toMatchObject({ code: "peer-unauthorized" });
  });
});

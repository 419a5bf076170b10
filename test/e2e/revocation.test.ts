import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { connect, type TLSSocket } from "node:tls";
import { credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { SpiffeWorkloadAPIClient, type X509SVIDResponse } from "../../src/workload-api/generated/workload.js";
import { agentid, bin, python, type RunningDev, startDev, startProgram } from "./agentid.js";
import { billingCommand, makeShop, shopYaml } from "./shop.js";

/** The tests are the agent: a process of another user, with the identity agents/tester by its uid. */
const TESTER = "spiffe://shop.local/agents/tester";
const yaml = shopYaml().replace("identities:\n", `identities:\n  agents/tester: { uid: ${process.getuid?.() ?? 0} }\n`);
const policy = `rules:
  - name: agents-read
    allow: { from: agents/**, to: services/invoices, method: GET, path: /v1/** }
`;

const project = makeShop({ "agentid.yaml": yaml, "policies/shop.yaml": policy });
let dev: RunningDev;
const clients: SpiffeWorkloadAPIClient[] = [];
const sockets: TLSSocket[] = [];

beforeAll(async () => {
  dev = await startDev(project);
});
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  for (const socket of sockets.splice(0)) socket.destroy();
});
afterAll(async () => {
  await dev.stop();
});

function client(): SpiffeWorkloadAPIClient {
  const own = new SpiffeWorkloadAPIClient(dev.ready.workloadApi, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  clients.push(own);
  return own;
}

function secure(): Metadata {
  const metadata = new Metadata();
  metadata.set("workload.spiffe.io", "true");
  return metadata;
}

/** An open stream: its first message, and how it ends. */
async function openStream() {
  const call = client().fetchX509Svid({}, secure());
  const ended = new Promise<ServiceError>((resolve) => call.once("error", resolve));
  const first = await Promise.race([once(call, "data"), ended.then((error) => Promise.reject(error))]);
  return { message: (first as [X509SVIDResponse])[0], ended };
}

function fetchToken(): Promise<{ code: number; token: string }> {
  return new Promise((resolve) => {
    client().fetchJwtsvid({ audience: ["orders"], spiffeId: "" }, secure(), (error, answer) =>
      resolve(error ? { code: error.code, token: "" } : { code: 0, token: answer.svids[0]?.svid ?? "" }),
    );
  });
}

function validate(svid: string): Promise<number> {
  return new Promise((resolve) => {
    client().validateJwtsvid({ audience: "orders", svid }, secure(), (error) => resolve(error?.code ?? 0));
  });
}

interface Svid {
  readonly cert: string;
  readonly key: string;
  readonly serial: string;
}

function svidOf({ svids }: X509SVIDResponse): Svid {
  const [svid] = svids;
  if (svid === undefined) throw new Error("no SVID");
  const leaf = new X509Certificate(svid.x509Svid);
  const key = Buffer.from(svid.x509SvidKey).toString("base64");
  return {
    cert: leaf.toString(),
    key: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`,
    serial: leaf.serialNumber.toLowerCase(),
  };
}

/** Mutual TLS with the inbound leg, as a program that has taken its SVID somewhere else would do it. */
async function dial({ cert, key }: Svid, session?: Buffer): Promise<TLSSocket> {
  const [host = "", port = ""] = dev.ready.services.invoices?.mtls.split(":") ?? [];
  const socket = connect({
    host,
    port: Number(port),
    cert,
    key,
    rejectUnauthorized: false,
    ...(session && { session }),
  });
  sockets.push(socket);
  socket.on("error", () => undefined);
  await once(socket, "secureConnect");
  return socket;
}

/** The status line that a request on `socket` is answered with. */
async function ask(socket: TLSSocket): Promise<string> {
  const { remotePort } = socket;
  socket.write(`GET /v1/invoices HTTP/1.1\r\nhost: 127.0.0.1:${remotePort}\r\n\r\n`);
  const [chunk] = (await Promise.race([once(socket, "data"), once(socket, "close")])) as [Buffer | boolean];
  return Buffer.isBuffer(chunk) ? (chunk.toString().split("\r\n")[0] ?? "") : "closed";
}

describe("agentid revoke", () => {
  it("ends streams and connections at once, issues nothing, survives a restart, is undone by command", async () => {
    const stream = await openStream();
    const svid = svidOf(stream.message);
    const { token } = await fetchToken();
    expect(await validate(token)).toBe(0);
    const inbound = await dial(svid);
    expect(await ask(inbound)).toBe("HTTP/1.1 200 OK");
    const session = inbound.getSession();

    const closed = once(inbound, "close");
    const revoked = await agentid(["revoke", "tester", "--json"], { cwd: project });
    expect(revoked.code).toBe(0);
    expect((await stream.ended).code).toBe(status.PERMISSION_DENIED);
    await closed;

    // What is out there is named, with its end.
    const report = JSON.parse(revoked.stdout) as {
      spiffeId: string;
      credentials: { type: string; serial?: string; audience?: string[]; notAfter: string }[];
    };
    expect(report.spiffeId).toBe(TESTER);
    expect(report.credentials).toContainEqual(expect.objectContaining({ type: "x509", notAfter: expect.any(String) }));
    expect(report.credentials.map(({ serial }) => serial)).toContain(svid.serial);
    expect(report.credentials).toContainEqual(expect.objectContaining({ type: "jwt", audience: ["orders"] }));

    // Nothing more is issued or believed; a session that was saved brings nothing back.
    await expect(openStream()).rejects.toMatchObject({ code: status.PERMISSION_DENIED });
    expect((await fetchToken()).code).toBe(status.PERMISSION_DENIED);
    expect(await validate(token)).toBe(status.INVALID_ARGUMENT);
    expect(await ask(await dial(svid))).toBe("HTTP/1.1 401 Unauthorized");
    const resumed = await dial(svid, session);
    expect(resumed.isSessionReused()).toBe(false);
    expect(await ask(resumed)).toBe("HTTP/1.1 401 Unauthorized");

    // Shown, listed, on record.
    await dev.until((event) => event.event === "identity" && event.change === "revoked");
    const listed = await agentid(["status"], { cwd: project });
    expect(listed.stdout).toContain(`revoked  ${TESTER}`);

    // A restart forgets nothing.
    await dev.stop();
    dev = await startDev(project);
    await expect(openStream()).rejects.toMatchObject({ code: status.PERMISSION_DENIED });
    expect(await ask(await dial(svid, session))).toBe("HTTP/1.1 401 Unauthorized");

    const undone = await agentid(["revoke", "--undo", "agents/tester"], { cwd: project });
    expect(undone.stdout).toContain(`restored  ${TESTER}`);
    const again = await openStream();
    expect(await ask(await dial(svidOf(again.message)))).toBe("HTTP/1.1 200 OK");
    // The certificate that was revoked stays revoked.
    expect(await ask(await dial(svid))).toBe("HTTP/1.1 401 Unauthorized");
    const shown = await agentid(["audit", "show", "--json"], { cwd: project });
    for (const kind of ["identity.revoked", "identity.restored"]) expect(shown.stdout).toContain(kind);
  });

  it.skipIf(python === undefined)("an agent that runs can call nothing any more, until it is undone", async () => {
    const agent = startProgram(process.execPath, [bin, "run", "billing", "--", ...billingCommand], { cwd: project });
    try {
      await agent.line();
      const calls = async () => {
        agent.write("GET /v1/invoices\n");
        return (await agent.line()).slice(0, 3);
      };
      expect(await calls()).toBe("200");
      await agentid(["revoke", "billing"], { cwd: project });
      expect(await calls()).toBe("403");
      await agentid(["revoke", "--undo", "billing"], { cwd: project });
      expect(await calls()).toBe("200");
    } finally {
      await agent.end();
    }
  });

  it("refuses launches, ends by itself, and says what it cannot do", async () => {
    const refused = async (...args: string[]) => {
      const done = await agentid(args, { cwd: project });
      return { code: done.code, stderr: done.stderr };
    };
    expect((await agentid(["revoke", "billing", "--until-restart"], { cwd: project })).code).toBe(0);
    const launch = await refused("run", "billing", "--", ...billingCommand);
    expect(launch.code).toBe(3);
    expect(launch.stderr).toContain("is revoked");
    expect((await agentid(["revoke", "--undo", "billing"], { cwd: project })).code).toBe(0);

    const since = dev.events.length;
    expect((await agentid(["revoke", "tester", "--for", "2s"], { cwd: project })).code).toBe(0);
    await dev.until((event) => event.event === "identity" && event.change === "restored", since);
    expect((await openStream()).message.svids).toHaveLength(1);

    expect((await refused("revoke", "nobody")).stderr).toContain("no identity nobody");
    expect((await refused("revoke", "--undo", "billing")).stderr).toContain("is not revoked");
    expect((await refused("revoke", "tester", "--for", "soon")).code).toBe(2);
  });
});

describe("agentid authority", () => {
  it("prepare, activate, taint, revoke: each SVID is replaced, and no saved session outlives the authority", async () => {
    const stream = client().fetchX509Svid({}, secure());
    const messages: X509SVIDResponse[] = [];
    let wake = () => {};
    stream.on("error", () => undefined);
    stream.on("data", (message: X509SVIDResponse) => {
      messages.push(message);
      wake();
    });
    const until = async (found: (message: X509SVIDResponse) => boolean): Promise<X509SVIDResponse> => {
      for (;;) {
        const [message] = messages.filter(found);
        if (message !== undefined) return message;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    const before = svidOf(await until(() => true));
    const old = await dial(before);
    expect(await ask(old)).toBe("HTTP/1.1 200 OK");
    const session = old.getSession();
    const authority = async (...args: string[]) => {
      const done = await agentid(["authority", ...args, "--json"], { cwd: project });
      expect(done.stderr).toBe("");
      return JSON.parse(done.stdout) as { keyId: string; authorities: { state: string; keyId: string }[] };
    };
    const [first] = (await authority("show")).authorities;
    expect((await agentid(["authority", "activate"], { cwd: project })).stderr).toContain("no authority is prepared");
    expect((await agentid(["authority", "taint", first?.keyId ?? ""], { cwd: project })).stderr).toContain(
      "an authority that is active cannot be tainted",
    );
    await authority("prepare");
    await until(({ svids }) => (svids[0]?.bundle.length ?? 0) > 0 && roots(svids[0]?.bundle) === 2);
    await authority("activate", "--now");
    const next = svidOf(
      await until(
        ({ svids }) => svids[0] !== undefined && svidOf({ svids } as X509SVIDResponse).serial !== before.serial,
      ),
    );
    await authority("taint", first?.keyId ?? "");
    expect((await authority("show")).authorities.map(({ state }) => state)).toEqual(["active", "tainted"]);
    // Distrusted by us, but still in the bundle for those who have not fetched theirs anew.
    expect(await ask(await dial(before))).toBe("HTTP/1.1 200 OK");

    const closed = once(old, "close");
    await authority("revoke", first?.keyId ?? "");
    await closed;
    expect(await ask(await dial(before))).toBe("HTTP/1.1 401 Unauthorized");
    const resumed = await dial(before, session);
    expect(resumed.isSessionReused()).toBe(false);
    expect(await ask(resumed)).toBe("HTTP/1.1 401 Unauthorized");
    expect(await ask(await dial(next))).toBe("HTTP/1.1 200 OK");
    stream.cancel();
  });
});

/** Certificates in concatenated DER. */
function roots(bundle: Uint8Array = new Uint8Array()): number {
  let count = 0;
  for (let rest = Buffer.from(bundle); rest.length > 0; count++) rest = rest.subarray(4 + rest.readUInt16BE(2));
  return count;
}

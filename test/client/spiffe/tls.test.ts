import { once } from "node:events";
import { connect as connectTcp, type Server } from "node:net";
import { type ConnectionOptions, connect, createServer as createRawTlsServer, type TLSSocket } from "node:tls";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  type Authorizer,
  anyId,
  connectTls,
  createTlsServer,
  memberOf,
  oneOf,
  type Peer,
  peerOf,
  type TlsServerOptions,
  WorkloadApiError,
  type X509Svid,
} from "../../../src/client/spiffe/index.js";
import { codeOf } from "../../../src/coded-error.js";
import { encodePem } from "../../../src/spiffe/pem.js";
import { verifies } from "../../requirements/verifies.js";
import {
  basicConstraints,
  HOUR,
  KeyUsageFlags,
  keyUsage,
  leafExtensions,
  makeAuthority,
  NOW,
  type TestCertificate,
  uris,
} from "../../spiffe/test-certificates.js";
import { createManualClock } from "../../workload-api/manual-clock.js";
import { BILLING, type ChangeableIdentity, identityOf, issue, listening, PLANNER, svidOf } from "./identities.js";

const clock = createManualClock(NOW.getTime());
let shop: TestCertificate;
let partner: TestCertificate;
let stranger: TestCertificate;
let trusted: Record<string, TestCertificate[]>;
/** Certificates that nobody may be let in with, though their holders have the keys. */
let bad: { name: string; svid: X509Svid; code: string }[];
let billing: X509Svid;
let planner: X509Svid;

beforeAll(async () => {
  [shop, partner, stranger] = await Promise.all([
    makeAuthority(),
    makeAuthority({ name: "CN=partner", extensions: authorityOf("spiffe://partner.example") }),
    makeAuthority({ name: "CN=root" }),
  ]);
  trusted = { "shop.local": [shop], "partner.example": [partner] };
  billing = await issue(shop, BILLING);
  planner = await issue(shop, PLANNER);
  const ca = leafExtensions({ constraints: basicConstraints(true), usage: keyUsage(SIGNING) });
  bad = [
    { name: "of another trust domain", svid: await issue(partner, "spiffe://partner.example/x"), code: "unauthorized" },
    { name: "of an unknown trust domain", svid: await issue(stranger, "spiffe://else.example/x"), code: "unverified" },
    { name: "of a look-alike authority", svid: await issue(stranger, PLANNER), code: "unverified" },
    {
      name: "that a federated authority issued for ours",
      svid: await issue(partner, "spiffe://shop.local/agents/planner"),
      code: "unverified",
    },
    { name: "that expired", svid: await issue(shop, PLANNER, { notAfter: -1000 }), code: "unverified" },
    { name: "not valid yet", svid: await issue(shop, PLANNER, { notBefore: HOUR / 2 }), code: "unverified" },
    { name: "that is a CA", svid: await issue(shop, PLANNER, { extensions: ca }), code: "unverified" },
    { name: "of the authority itself", svid: svidOf(shop, "spiffe://shop.local"), code: "unverified" },
    {
      name: "with two IDs",
      svid: await issue(shop, PLANNER, { extensions: leafExtensions({ names: uris(PLANNER, BILLING) }) }),
      code: "unverified",
    },
  ];
});

const SIGNING = KeyUsageFlags.digitalSignature | KeyUsageFlags.keyCertSign;

function authorityOf(id: string) {
  return [basicConstraints(true), keyUsage(KeyUsageFlags.keyCertSign), uris(id)];
}

interface RunningServer {
  readonly port: number;
  readonly identity: ChangeableIdentity;
  readonly met: Peer[];
  readonly refused: Error[];
  readonly received: string[];
}

let opened: Server[];
beforeEach(() => {
  opened = [];
});
afterEach(async () => {
  for (const server of opened) server.close();
});

/** A server that greets those it lets in. */
async function serve(
  authorize: Authorizer,
  svid = billing,
  more: Pick<TlsServerOptions, "handshakeTimeoutMs"> = {},
): Promise<RunningServer> {
  const identity = identityOf(svid, trusted);
  const met: Peer[] = [];
  const refused: Error[] = [];
  const received: string[] = [];
  const options = { authorize, clock, onRefused: (reason: Error) => refused.push(reason), ...more };
  const server = createTlsServer(identity, options, (socket, peer) => {
    met.push(peer);
    socket.on("data", (data: Buffer) => received.push(data.toString()));
    socket.write(`hello ${peer.id}`);
  });
  opened.push(server);
  return { port: await listening(server), identity, met, refused, received };
}

function dial(port: number, svid: X509Svid, authorize: Authorizer = oneOf(BILLING)): Promise<TLSSocket> {
  return connectTls(identityOf(svid, trusted), { host: "127.0.0.1", port, authorize, clock });
}

async function greeting(socket: TLSSocket): Promise<string> {
  const [data] = (await once(socket, "data")) as [Buffer];
  return data.toString();
}

/** Who does not speak by our rules: any certificate, any version, no verification. */
function rawDial(port: number, svid: X509Svid | undefined, more: ConnectionOptions = {}): TLSSocket {
  const own = svid === undefined ? {} : rawOptions(svid);
  return connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ...own, ...more });
}

function rawOptions(svid: X509Svid) {
  return {
    cert: svid.certificates.map((der) => encodePem("CERTIFICATE", der)).join(""),
    key: svid.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
  };
}

it("a connection that does not come out of its handshake in time is closed, and the server told", async () => {
  const { port, refused, met } = await serve(oneOf(PLANNER), billing, { handshakeTimeoutMs: 200 });
  const silent = connectTcp(port, "127.0.0.1");
  silent.resume();
  await once(silent, "close");
  expect(refused.map(codeOf)).toEqual(["ERR_TLS_HANDSHAKE_TIMEOUT"]);
  expect(met).toEqual([]);
});

describe("mutual TLS by SPIFFE ID", () => {
  it("tells each side who the other is", async () => {
    const { port, met } = await serve(oneOf(PLANNER));
    const socket = await dial(port, planner);
    expect(await greeting(socket)).toBe(`hello ${PLANNER}`);
    expect(socket.getProtocol()).toBe("TLSv1.3");
    expect(peerOf(socket)?.id.toString()).toBe(BILLING);
    expect(met.map(({ id }) => id.toString())).toEqual([PLANNER]);
    expect(met[0]?.certificates).toEqual(planner.certificates);
    socket.destroy();
  });

  it("lets in by trust domain, by ID, or anyone of a trusted domain", async () => {
    const partnerSvid = await issue(partner, "spiffe://partner.example/x");
    const outcomes: unknown[] = [];
    for (const authorize of [memberOf("shop.local"), memberOf("partner.example"), anyId()]) {
      for (const svid of [planner, partnerSvid]) {
        const { port } = await serve(authorize);
        outcomes.push(await outcomeOf(port, svid));
      }
    }
    expect(outcomes).toEqual(["greeted", "refused", "refused", "greeted", "greeted", "greeted"]);
  });

  it(`${verifies("XS-8", "XS-9", "XS-10")} a server refuses every bad certificate, and serves the good one`, async () => {
    for (const { name, svid, code } of bad) {
      const { port, met, refused, received } = await serve(memberOf("shop.local"));
      const socket = rawDial(port, svid);
      socket.on("error", () => {});
      socket.once("secureConnect", () => socket.write("a request"));
      await once(socket, "close");
      expect([name, refused.map(codeOf)]).toEqual([name, [`peer-${code}`]]);
      expect([name, met, received]).toEqual([name, [], []]);
      expect(await outcomeOf(port, planner)).toBe("greeted");
    }
  });

  it(`${verifies("XS-8", "XS-9", "XS-10")} a client refuses every bad certificate, and takes the good one`, async () => {
    for (const { name, svid, code } of bad) {
      const received: string[] = [];
      const server = createRawTlsServer(
        { ...rawOptions(svid), requestCert: true, rejectUnauthorized: false },
        (socket) => {
          socket.on("error", () => {});
          socket.on("data", (data) => received.push(data.toString()));
        },
      );
      opened.push(server);
      const port = await listening(server);
      const refusal = await dial(port, planner, memberOf("shop.local")).catch(codeOf);
      expect([name, refusal, received]).toEqual([name, `peer-${code}`, []]);
    }
    const { port } = await serve(anyId());
    expect(await outcomeOf(port, planner)).toBe("greeted");
  });

  it("a client refuses a good server that is not the wanted one", async () => {
    const { port, received } = await serve(anyId());
    await expect(dial(port, planner, oneOf("spiffe://shop.local/other"))).rejects.toMatchObject({
      code: "peer-unauthorized",
      message: `the peer is ${BILLING}, wanted is spiffe://shop.local/other`,
    });
    expect(received).toEqual([]);
    expect(await outcomeOf(port, planner)).toBe("greeted");
  });

  it("refuses who shows no certificate, and older versions of TLS", async () => {
    const { port, refused, met } = await serve(anyId());
    const bare = rawDial(port, undefined);
    bare.on("error", () => {});
    await once(bare, "close");
    expect(refused.map(codeOf)).toEqual(["peer-certificate-missing"]);
    const old = rawDial(port, planner, { maxVersion: "TLSv1.2" });
    const [error] = (await once(old, "error")) as [Error];
    expect(codeOf(error)).toBe("ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION");
    expect(met).toEqual([]);
    expect(await outcomeOf(port, planner)).toBe("greeted");
  });

  it("resumes no session", async () => {
    const { port } = await serve(anyId());
    const sessions: Buffer[] = [];
    const first = rawDial(port, planner);
    first.on("session", (session: Buffer) => sessions.push(session));
    await greeting(first);
    const session = sessions.at(-1) ?? first.getSession();
    first.destroy();
    expect(session).toBeDefined();
    const again = rawDial(port, planner, session === undefined ? {} : { session });
    await greeting(again);
    expect(again.isSessionReused()).toBe(false);
    again.destroy();
  });
});

describe("a rotation", () => {
  it("serves new connections with the new SVID and leaves those that run", async () => {
    const { port, identity } = await serve(anyId());
    const before = await dial(port, planner);
    await greeting(before);
    const renewed = await issue(shop, BILLING);
    identity.present(renewed);
    const after = await dial(port, planner);
    await greeting(after);
    expect(peerOf(before)?.certificates).toEqual(billing.certificates);
    expect(peerOf(after)?.certificates).toEqual(renewed.certificates);
    expect(before.destroyed).toBe(false);
    before.destroy();
    after.destroy();
  });

  it("of authorities ends connections of one that lost trust, not of one that was replaced", async () => {
    const { port, identity } = await serve(anyId());
    const socket = await dial(port, planner);
    await greeting(socket);
    const next = await makeAuthority({ name: "CN=next" });
    identity.trust({ "shop.local": [shop, next] });
    socket.write("still here");
    expect(await outcomeOf(port, planner)).toBe("greeted");
    expect(socket.destroyed).toBe(false);
    socket.on("error", () => {});
    identity.trust({ "shop.local": [next] });
    await once(socket, "close");
    expect(await outcomeOf(port, planner)).toBe("refused");
  });

  it("ends a client's connections too, when it trusts the server's authority no more", async () => {
    const { port } = await serve(anyId());
    const identity = identityOf(planner, trusted);
    const socket = await connectTls(identity, { host: "127.0.0.1", port, authorize: anyId(), clock });
    await greeting(socket);
    const ended = new Promise((resolve) => socket.once("close", resolve));
    const failed = new Promise((resolve) => socket.once("error", resolve));
    identity.trust({});
    expect(codeOf(await failed)).toBe("peer-unverified");
    await ended;
    expect(identity.listeners).toBe(0);
  });

  it("that withdraws the SVID ends serving and connecting", async () => {
    const { port, identity, refused } = await serve(anyId());
    expect(await outcomeOf(port, planner)).toBe("greeted");
    identity.present(new WorkloadApiError("svid-withdrawn", "withdrawn"));
    expect(await outcomeOf(port, planner)).toBe("refused");
    expect(refused.map(codeOf)).toEqual(["svid-withdrawn"]);
    const options = { host: "127.0.0.1", port, authorize: anyId(), clock };
    await expect(connectTls(identity, options)).rejects.toMatchObject({ code: "svid-withdrawn" });
  });
});

describe("connecting", () => {
  it("gives up in time, and when asked to", async () => {
    const { createServer } = await import("node:net");
    const silent = createServer(() => {});
    opened.push(silent);
    const port = await listening(silent);
    const options = { host: "127.0.0.1", port, authorize: anyId(), clock };
    await expect(connectTls(identityOf(planner, trusted), { ...options, timeoutMs: 50 })).rejects.toMatchObject({
      code: "ETIMEDOUT",
    });
    const signal = AbortSignal.timeout(50);
    await expect(connectTls(identityOf(planner, trusted), { ...options, signal })).rejects.toMatchObject({
      name: "TimeoutError",
    });
    await expect(dial(1, planner)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });
});

/** Whether the server's greeting arrives before the connection ends. */
async function outcomeOf(port: number, svid: X509Svid): Promise<"greeted" | "refused"> {
  const socket = await dial(port, svid, anyId());
  return new Promise((resolve) => {
    socket.on("error", () => {});
    socket.once("close", () => resolve("refused"));
    socket.once("data", () => {
      resolve("greeted");
      socket.destroy();
    });
  });
}

import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import { encodePem } from "../../src/spiffe/pem.js";
import { presentedChain } from "../../src/spiffe/presented-chain.js";
import { MAX_CHAIN_LENGTH } from "../../src/spiffe/x509-svid.js";
import { makeAuthority, makeLeaf, type TestCertificate } from "./test-certificates.js";

const root = await makeAuthority();
const upper = await makeAuthority({ issuer: root, name: "CN=upper" });
const lower = await makeAuthority({ issuer: upper, name: "CN=lower" });
const leaf = await makeLeaf(lower);
const stranger = await makeAuthority({ name: "CN=stranger" });
const certificates = { root, upper, lower, leaf, stranger };
type Name = keyof typeof certificates;

test.each<{ presented: Name[]; read: Name[] }>([
  { presented: ["leaf"], read: ["leaf"] },
  { presented: ["leaf", "lower"], read: ["leaf", "lower"] },
  { presented: ["leaf", "lower", "upper", "root"], read: ["leaf", "lower", "upper", "root"] },
  { presented: ["leaf", "stranger", "lower", "upper"], read: ["leaf", "lower", "upper"] },
  { presented: ["leaf", "lower", "lower", "upper"], read: ["leaf", "lower", "upper"] },
  { presented: ["leaf", "stranger"], read: ["leaf"] },
  { presented: ["root"], read: ["root"] },
  { presented: ["root", "root"], read: ["root"] },
])("of $presented the chain is $read, at both ends and as often as one asks", async ({ presented, read }) => {
  const expected = read.map((name) => certificates[name].der);
  const shown = presented.map((name) => certificates[name]);
  for (const chainSeen of await bothEnds(shown, (socket) => [presentedChain(socket), presentedChain(socket)])) {
    expect(chainSeen).toEqual([expected, expected]);
  }
});

test("reading the chain leaves it where it is", async () => {
  const [seen] = await bothEnds([leaf, lower], (socket) => {
    presentedChain(socket);
    return socket.getPeerCertificate(true).issuerCertificate.raw;
  });
  expect(seen).toEqual(lower.der);
});

test("whoever presents no certificate has no chain", async () => {
  const [atServer] = await bothEnds([leaf], (socket) => presentedChain(socket).length, []);
  expect(atServer).toBe(0);
});

test("a chain that is too long to be verified is read as one", async () => {
  const long = [root];
  for (let at = 1; at <= MAX_CHAIN_LENGTH + 3; at += 1) {
    long.unshift(await makeAuthority({ issuer: long[0] as TestCertificate, name: `CN=authority ${at}` }));
  }
  const [length] = await bothEnds(long, (socket) => presentedChain(socket).length);
  expect(length).toBeGreaterThan(MAX_CHAIN_LENGTH);
});

/** What `read` says at the server and at the client, of which each presents `shown`, the client `shownByClient`. */
async function bothEnds<Value>(
  shown: readonly TestCertificate[],
  read: (socket: TLSSocket) => Value,
  shownByClient = shown,
): Promise<readonly [Value, Value]> {
  const server = createServer({ ...(await optionsOf(shown)), requestCert: true, rejectUnauthorized: false, ca: [] });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const accepted = once(server, "secureConnection");
  const client = connect({
    ...(await optionsOf(shownByClient)),
    ...{ host: "127.0.0.1", port, rejectUnauthorized: false, ca: [] },
  });
  try {
    const [[socket]] = await Promise.all([accepted, once(client, "secureConnect")]);
    return [read(socket as TLSSocket), read(client)];
  } finally {
    client.destroy();
    server.close();
  }
}

async function optionsOf(shown: readonly TestCertificate[]) {
  const [first] = shown;
  if (first === undefined) return {};
  const key = Buffer.from(await crypto.subtle.exportKey("pkcs8", first.keys.pair.privateKey));
  return {
    cert: shown.map(({ der }) => encodePem("CERTIFICATE", der)).join(""),
    key: encodePem("PRIVATE KEY", key),
    minVersion: "TLSv1.3",
  } as const;
}

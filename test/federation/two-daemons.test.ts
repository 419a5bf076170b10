import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { type ClientReadableStream, credentials, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AgentidEvent } from "../../src/control-api/events.js";
import { encodePem } from "../../src/spiffe/pem.js";
import { presentedChain } from "../../src/spiffe/presented-chain.js";
import { splitX509Chain } from "../../src/spiffe/x509-certificate.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import {
  type JWTSVIDResponse,
  SpiffeWorkloadAPIClient,
  type ValidateJWTSVIDResponse,
} from "../../src/workload-api/generated/workload.js";
import { agentid, giveTo, makeProject, type RunningDev, startDev } from "../e2e/agentid.js";
import { verifies } from "../requirements/verifies.js";
import {
  basicConstraints,
  KeyUsageFlags,
  keyUsage,
  leafExtensions,
  makeCertificate,
  makeLeaf,
  NOW,
} from "../spiffe/test-certificates.js";
import { receive } from "../workload-api/received.js";
import { secure } from "../workload-api/running-api.js";
import { freePort } from "./free-port.js";
import { privateKeyOf } from "./web-certificates.js";

/** What an agent holds to make a call with. */
interface Credentials {
  readonly chain: readonly Buffer[];
  readonly key: Buffer;
  /** Roots by SPIFFE ID of the trust domain. */
  readonly bundles: ReadonlyMap<string, readonly Buffer[]>;
}

const RULES = (extra = "") => `rules:
  - name: agents-of-the-shop
    allow: { from: "spiffe://shop.local/agents/caller", to: services/invoices, method: GET, path: /v1/** }
${extra}`;

const SERVICE = `require("node:http").createServer((request, response) => {
  response.end(request.headers["x-forwarded-client-cert"]);
}).listen(process.env.AGENTID_LISTEN);
`;

/** shop.local, whose agent calls; bank.local, whose service is called. Two real daemons, each with its endpoint. */
describe("two trust domains on one machine", { timeout: 120_000 }, () => {
  const uid = process.getuid?.() ?? 0;
  const endpoints = { shop: 0, bank: 0 };
  let shopFolder: string;
  let bankFolder: string;
  let shop: RunningDev;
  let bank: RunningDev;

  const configOf = (own: "shop" | "bank", followed: boolean) => {
    const other = own === "shop" ? "bank" : "shop";
    const follow = `  trustDomains:
    ${other}.local:
      url: https://127.0.0.1:${endpoints[other]}/
      profile: https_spiffe
      endpointSpiffeId: spiffe://${other}.local/agentid/bundle-endpoint
      bundle: ${other}.json
`;
    const of = {
      shop: `identities:\n  agents/caller: { uid: ${uid} }\n`,
      bank: `identities:\n  agents/admin: { uid: 4294967 }\nservices:\n  invoices: { http: { command: [${JSON.stringify(process.execPath)}, invoices.js] } }\n`,
    };
    return `trustDomain: ${own}.local
${of[own]}reload: confirm
federation:
  endpoint: { listen: "127.0.0.1:${endpoints[own]}", profile: https_spiffe }
${followed ? follow : ""}`;
  };

  beforeAll(async () => {
    endpoints.shop = await freePort();
    endpoints.bank = await freePort();
    shopFolder = makeProject({ "agentid.yaml": configOf("shop", false), "policies/none.yaml": "rules: []\n" });
    bankFolder = makeProject({
      "agentid.yaml": configOf("bank", false),
      "policies/bank.yaml": RULES(),
      "invoices.js": SERVICE,
    });
    [shop, bank] = await Promise.all([startDev(shopFolder), startDev(bankFolder)]);
  });
  afterAll(async () => {
    await Promise.all([shop?.stop(), bank?.stop()]);
  });

  const inShop = (...args: string[]) => agentid(args, { cwd: shopFolder });
  const inBank = (...args: string[]) => agentid(args, { cwd: bankFolder });

  /** Saves a file and waits for what comes of it. */
  async function save(dev: RunningDev, folder: string, name: string, text: string, outcome: string) {
    const seen = dev.events.length;
    writeFileSync(join(folder, name), text);
    giveTo(join(folder, name));
    const reloaded = (event: AgentidEvent) => event.event === "reload" && event.outcome === outcome;
    return await dev.until(reloaded, seen);
  }

  /** Asks the Workload API of a daemon, as any client would. */
  async function ask<Answer>(dev: RunningDev, what: (client: SpiffeWorkloadAPIClient) => Promise<Answer>) {
    const client = new SpiffeWorkloadAPIClient(
      `unix:${dev.ready.workloadApi.replace("unix://", "")}`,
      credentials.createInsecure(),
      { "grpc.use_local_subchannel_pool": 1 },
    );
    try {
      return await what(client);
    } finally {
      client.close();
    }
  }

  async function first<Message>(stream: ClientReadableStream<Message>): Promise<Message> {
    const messages = receive(stream);
    const message = await messages.next();
    messages.cancel();
    return message;
  }

  /** What the Workload API of shop.local gives this process. */
  async function fetchCredentials(): Promise<Credentials> {
    const { svids, federatedBundles } = await ask(shop, (client) => first(client.fetchX509Svid({}, secure())));
    const [svid] = svids;
    if (svid === undefined) throw new Error("no SVID");
    const foreign = Object.entries(federatedBundles).map(
      ([id, der]) => [id, splitX509Chain(Buffer.from(der))] as const,
    );
    return {
      chain: splitX509Chain(Buffer.from(svid.x509Svid)),
      key: Buffer.from(svid.x509SvidKey),
      bundles: new Map(foreign),
    };
  }

  /** The identity that bank.local finds in a JWT-SVID of shop.local, or why it does not. */
  async function validatedInBank(): Promise<string> {
    const audience = "https://bank.example";
    const token = await ask(shop, (client) =>
      answered<JWTSVIDResponse>((done) => client.fetchJwtsvid({ audience: [audience], spiffeId: "" }, secure(), done)),
    );
    const svid = token.svids[0]?.svid ?? "";
    return await ask(bank, (client) =>
      answered<ValidateJWTSVIDResponse>((done) => client.validateJwtsvid({ audience, svid }, secure(), done)),
    ).then(
      ({ spiffeId }) => spiffeId,
      (error: ServiceError) => error.details,
    );
  }

  /** Calls the inbound leg of bank.local's service; the server is verified against the bundle of its own trust domain. */
  function call({ chain, key, bundles }: Credentials): Promise<{ status: number; body: string; server: string }> {
    const [host = "", port = ""] = (bank.ready.services.invoices?.mtls ?? "").split(":");
    return new Promise((resolve, reject) => {
      const calling = request({
        ...{ host, port, path: "/v1/invoices", agent: false, rejectUnauthorized: false },
        cert: chain.map((der) => encodePem("CERTIFICATE", der)).join(""),
        key: encodePem("PRIVATE KEY", key),
      });
      let server = "unverified";
      calling.once("socket", (socket) =>
        socket.once("secureConnect", () => {
          try {
            const authorities = (trustDomain: { id: object }) => bundles.get(String(trustDomain.id));
            server = verifyX509Svid(presentedChain(socket as never), authorities, new Date()).id.toString();
          } catch (thrown) {
            server = String((thrown as { code?: string }).code);
          }
        }),
      );
      calling.once("error", reject);
      calling.once("response", (response) => {
        let body = "";
        response.on("data", (chunk) => {
          body += String(chunk);
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body, server }));
      });
      calling.end();
    });
  }

  it("do not know each other at first", async () => {
    const agent = await fetchCredentials();
    expect([...agent.bundles.keys()]).toEqual([]);
    expect(await call(agent)).toMatchObject({ status: 401, server: "x509-svid-trust-domain-unknown" });
    expect(await validatedInBank()).toContain("shop.local");
    expect((await inBank("bundle", "show", "--trust-domain", "shop.local")).code).toBe(1);
  });

  it(`${verifies("XR-9", "XR-11", "JR-7", "JR-15", "FD-4", "FD-5")} federate once both owners have accepted it; a rule that names the foreign ID allows its call`, async () => {
    for (const [from, to, name] of [
      [shopFolder, bankFolder, "shop.json"],
      [bankFolder, shopFolder, "bank.json"],
    ] as const) {
      const shown = await agentid(["bundle", "show"], { cwd: from });
      expect(shown).toMatchObject({ code: 0, stderr: "" });
      writeFileSync(join(to, name), shown.stdout);
      giveTo(join(to, name));
    }
    expect(await save(shop, shopFolder, "agentid.yaml", configOf("shop", true), "waiting")).toMatchObject({
      widened: true,
    });
    expect(await save(bank, bankFolder, "agentid.yaml", configOf("bank", true), "waiting")).toMatchObject({
      widened: true,
    });
    // Nothing has changed until the owner says so (D13).
    expect(await call(await fetchCredentials())).toMatchObject({
      status: 401,
      server: "x509-svid-trust-domain-unknown",
    });
    expect((await inShop("reload", "accept")).code).toBe(0);
    expect((await inBank("reload", "accept")).code).toBe(0);
    expect((await inBank("federate", "refresh")).stdout).toMatch(/^shop\.local {2}(un)?changed\n$/);
    const agent = await fetchCredentials();
    expect([...agent.bundles.keys()]).toEqual(["spiffe://bank.local"]);
    const both = ["spiffe://bank.local", "spiffe://shop.local"];
    const bundles = await ask(shop, (client) => first(client.fetchX509Bundles({}, secure())));
    expect(Object.keys(bundles.bundles).sort()).toEqual(both);
    const keys = await ask(shop, (client) => first(client.fetchJwtBundles({}, secure())));
    expect(Object.keys(keys.bundles).sort()).toEqual(both);
    expect(await validatedInBank()).toBe("spiffe://shop.local/agents/caller");
    const answer = await call(agent);
    expect(answer).toMatchObject({ status: 200, server: "spiffe://bank.local/services/invoices" });
    expect(answer.body).toContain("URI=spiffe://shop.local/agents/caller");
    expect((await inBank("federate", "show")).stdout).toMatch(/^shop\.local {2}trusted$/m);
    expect((await inBank("bundle", "list")).stdout).toMatch(/^bank\.local .*own|this trust domain/m);
  });

  it("without such a rule the call is refused, and recorded with the foreign ID", async () => {
    await save(bank, bankFolder, "policies/bank.yaml", "rules: []\n", "applied");
    const seen = bank.events.length;
    expect(await call(await fetchCredentials())).toMatchObject({ status: 403 });
    const denied = await bank.until((event) => event.event === "call", seen);
    expect(denied).toMatchObject({ verdict: "DENY", caller: "spiffe://shop.local/agents/caller" });
    await save(bank, bankFolder, "policies/bank.yaml", RULES(), "waiting");
    expect((await inBank("reload", "accept")).code).toBe(0);
    expect(await call(await fetchCredentials())).toMatchObject({ status: 200 });
  });

  it(`${verifies("FD-7")} a foreign authority that signs for another trust domain than its own is refused`, async () => {
    const life = { notBefore: Date.now() - NOW.getTime() - 60_000, notAfter: Date.now() - NOW.getTime() + 600_000 };
    const extensions = [basicConstraints(true), keyUsage(KeyUsageFlags.keyCertSign)];
    const evil = await makeCertificate({ name: "CN=evil", extensions, ...life });
    const file = join(bankFolder, "evil.pem");
    writeFileSync(file, encodePem("CERTIFICATE", evil.der));
    giveTo(file);
    const as = async (id: string): Promise<Credentials> => {
      const leaf = await makeLeaf(evil, { extensions: leafExtensions({ id }), ...life });
      return { chain: [leaf.der], key: await privateKeyOf(leaf), bundles: new Map() };
    };
    const own = await as("spiffe://evil.local/agents/caller");
    expect(await call(own)).toMatchObject({ status: 401 });
    expect((await inBank("bundle", "set", "bank.local", file)).stderr).toContain("bank.local is this trust domain");
    expect((await inBank("bundle", "set", "evil.local", file)).code).toBe(0);
    const extra = `  - name: evil
    allow: { from: ["spiffe://evil.local/agents/caller", "spiffe://bank.local/agents/admin"], to: services/invoices, method: GET, path: /v1/** }
`;
    await save(bank, bankFolder, "policies/bank.yaml", RULES(extra), "waiting");
    expect((await inBank("reload", "accept")).code).toBe(0);
    expect(await call(own)).toMatchObject({ status: 200 });
    for (const id of ["spiffe://shop.local/agents/caller", "spiffe://bank.local/agents/admin"]) {
      expect(await call(await as(id)), id).toMatchObject({ status: 401 });
    }
    expect((await inBank("bundle", "delete", "evil.local")).code).toBe(0);
    expect(await call(own)).toMatchObject({ status: 401 });
    expect((await inBank("bundle", "delete", "shop.local")).stderr).toContain("federation.trustDomains");
  });

  it(`${verifies("TB-2", "FD-5")} each rotates, and the other has known the new authority before it signs`, async () => {
    const serial = (agent: Credentials) => agent.chain[0]?.toString("hex");
    const before = await fetchCredentials();
    for (const [rotating, other] of [
      [inShop, inBank],
      [inBank, inShop],
    ] as const) {
      expect((await rotating("authority", "prepare")).code).toBe(0);
      expect((await other("federate", "refresh")).stdout).toMatch(/ {2}changed\n$/);
      expect((await rotating("authority", "activate", "--now")).code).toBe(0);
    }
    const agent = await fetchCredentials();
    expect(serial(agent)).not.toBe(serial(before));
    expect(await call(agent)).toMatchObject({ status: 200, server: "spiffe://bank.local/services/invoices" });
    // The endpoints' own SVIDs are of the new authorities as well.
    for (const each of [inShop, inBank]) expect((await each("federate", "refresh")).stdout).toMatch(/changed\n$/);
  });

  it(`${verifies("FD-8")} lose and regain each other`, async () => {
    const agent = await fetchCredentials();
    await shop.stop();
    const seen = bank.events.length;
    const failed = await inBank("federate", "refresh");
    expect(failed.code).toBe(1);
    expect(failed.stdout).toContain("shop.local  failed: ");
    expect(await bank.until((event) => event.event === "problem", seen)).toMatchObject({ code: "federation" });
    expect((await inBank("status")).stdout).toContain("the bundle of shop.local cannot be refreshed");
    // Who is away is still who it was.
    expect(await call(agent)).toMatchObject({ status: 200 });

    shop = await startDev(shopFolder);
    expect((await inBank("federate", "refresh")).code).toBe(0);
    expect((await inBank("status")).stdout).not.toContain("cannot be refreshed");
    expect(await call(await fetchCredentials())).toMatchObject({ status: 200 });

    // A daemon that restarts while the other is away begins with what it knew.
    await shop.stop();
    await bank.stop();
    bank = await startDev(bankFolder);
    expect(await call(agent)).toMatchObject({ status: 200 });
    shop = await startDev(shopFolder);
    expect(await call(await fetchCredentials())).toMatchObject({ status: 200 });
  });

  it("a trust domain that is taken out of the file is trusted no more, at once", async () => {
    const agent = await fetchCredentials();
    expect(await call(agent)).toMatchObject({ status: 200 });
    await save(bank, bankFolder, "agentid.yaml", configOf("bank", false), "applied");
    expect(await call(agent)).toMatchObject({ status: 401 });
    expect((await inBank("bundle", "list")).stdout).not.toContain("shop.local");
    const record = readFileSync(join(bankFolder, ".agentid", "audit", firstSegment(bankFolder)), "utf8");
    for (const kind of ["bundle.set", "bundle.deleted"]) expect(record).toContain(`"kind":"${kind}"`);
  });
});

/** The answer of a unary call. */
function answered<Answer>(call: (done: (error: ServiceError | null, answer: Answer) => void) => unknown) {
  return new Promise<Answer>((resolve, reject) => {
    call((error, answer) => (error === null ? resolve(answer) : reject(error)));
  });
}

function firstSegment(folder: string): string {
  const { stdout } = spawnSync("ls", [join(folder, ".agentid", "audit")], { encoding: "utf8" });
  return stdout.split("\n")[0] ?? "";
}

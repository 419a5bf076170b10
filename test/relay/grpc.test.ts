import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import * as grpc from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { secureContextOptions } from "../../src/http/mutual-tls.js";
import { type GrpcService, type LedgerClient, ledgerClient, runGrpcService } from "./grpc-service.js";
import { identity, type RunningRelay, runRelay, testAgent } from "./running-relay.js";

const RULES = `rules:
  - { name: ledger, allow: { from: agents/*, to: ledger, method: POST, path: /shop.Ledger/* } }
  - { name: no-secrets, deny: { from: agents/*, to: ledger, path: /shop.Ledger/Secret }, message: "ask ünø: 100%" }
`;

let service: GrpcService;
let running: RunningRelay;
const clients: LedgerClient[] = [];

beforeEach(async () => {
  service = await runGrpcService("ledger");
  running = await runRelay({
    services: [service.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
  });
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await running.close();
  service.close();
});

interface Way {
  readonly name: string;
  connect(options?: grpc.ChannelOptions): LedgerClient;
}

const outbound: Way = {
  name: "both legs",
  connect(options) {
    const client = ledgerClient(new URL(running.urlOf("ledger")).host, undefined, options);
    clients.push(client);
    return client;
  },
};

const inbound: Way = {
  name: "the inbound leg",
  connect(options) {
    const { port } = running.relay.addressesOf("ledger")?.mtls ?? {};
    const { cert, key } = secureContextOptions(running.svidOf("agents/other"));
    const verify = { checkServerIdentity: () => undefined, rejectUnauthorized: false };
    const credentials = grpc.credentials.createSsl(null, Buffer.from(key), Buffer.from(cert), verify);
    const client = ledgerClient(`localhost:${port}`, credentials, options);
    clients.push(client);
    return client;
  },
};

interface Answer {
  readonly error: grpc.ServiceError | null;
  readonly value: Buffer | undefined;
}

function unary(
  client: LedgerClient,
  request: Buffer | string,
  {
    method = "Get",
    metadata = new grpc.Metadata(),
    options = {},
  }: { method?: "Get" | "Secret"; metadata?: grpc.Metadata; options?: grpc.CallOptions } = {},
): Promise<Answer> {
  return new Promise((resolve) => {
    client[method](Buffer.from(request), metadata, options, (error, value) => resolve({ error, value }));
  });
}

const decisions = () => running.record.entries.filter(({ kind }) => kind === "decision");

describe.each([outbound, inbound])("gRPC through $name", (way) => {
  it("carries a unary call, and is on record as the POST it is", async () => {
    const { error, value } = await unary(way.connect(), "hello");
    expect(error).toBeNull();
    expect(value?.toString()).toBe("hello");
    expect(service.arrived).toHaveLength(1);
    expect(String(service.arrived[0]?.metadata.get("x-forwarded-client-cert"))).toContain(
      "URI=spiffe://shop.local/agents/",
    );
    expect(decisions()[0]?.fields).toMatchObject({
      ...{ verdict: "ALLOW", protocol: "grpc", action: "POST", target: "/shop.Ledger/Get", rule: "ledger" },
    });
    expect(running.record.entries.at(-1)).toMatchObject({ kind: "call", fields: { status: 200, grpcStatus: 0 } });
    await expect.poll(() => running.events.at(-1)).toMatchObject({ event: "call.ended", status: 200 });
  });

  it("is PERMISSION_DENIED with the reason and the decision where a rule denies it, and never arrives", async () => {
    const client = way.connect();
    await unary(client, "hello");
    const { error } = await unary(client, "hello", { method: "Secret" });
    expect(error?.code).toBe(grpc.status.PERMISSION_DENIED);
    const last = decisions().at(-1)?.fields;
    expect(last).toMatchObject({ verdict: "DENY", rule: "no-secrets", target: "/shop.Ledger/Secret" });
    expect(error?.details).toBe(
      `ask ünø: 100%: denied by policy no-secrets (${last?.reason}). Decision ${last?.decision}`,
    );
    expect(error?.metadata.get("agentid-decision")).toEqual([last?.decision]);
    expect(service.arrived.map(({ method }) => method)).toEqual(["Get"]);
  });

  it("carries streams in both directions, alone and together", async () => {
    const client = way.connect();
    const added = await new Promise<string>((resolve, reject) => {
      const call = client.Add(new grpc.Metadata(), (error, value) => (error ? reject(error) : resolve(String(value))));
      for (let index = 0; index < 100; index += 1) call.write(Buffer.alloc(1_000));
      call.end();
    });
    expect(added).toBe("100000");
    const listed: string[] = [];
    for await (const item of client.List(Buffer.from("100"))) listed.push(String(item));
    expect(listed).toEqual(Array.from({ length: 100 }, (_, index) => String(index)));
    const follow = client.Follow();
    for (const word of ["one", "two", "three"]) {
      follow.write(Buffer.from(word));
      expect(String((await once(follow, "data"))[0])).toBe(word);
    }
    follow.end();
    const [status] = (await once(follow.resume(), "status")) as [grpc.StatusObject];
    expect(status.code).toBe(0);
  });

  it("carries metadata both ways, also twice and in bytes, and nothing that only a relay may say", async () => {
    service.handlers.Get = (call, callback) => {
      const head = new grpc.Metadata();
      head.set("x-head", "1");
      call.sendMetadata(head);
      const trailers = new grpc.Metadata();
      for (const value of call.metadata.get("x-many")) trailers.add("x-many", value);
      trailers.set("x-bytes-bin", call.metadata.get("x-bytes-bin")[0] ?? "");
      trailers.set("agentid-decision", "forged");
      callback(null, call.request, trailers);
    };
    const metadata = new grpc.Metadata();
    metadata.add("x-many", "a");
    metadata.add("x-many", "b");
    metadata.set("x-bytes-bin", Buffer.from([0, 255, 10]));
    metadata.set("x-forwarded-client-cert", "URI=spiffe://shop.local/agents/admin");
    metadata.set("authorization", "Bearer of-the-caller");
    const answered: { head?: grpc.Metadata; status?: grpc.StatusObject } = {};
    await new Promise<void>((resolve) => {
      const call = way.connect().Get(Buffer.from("x"), metadata, {}, () => undefined);
      call.on("metadata", (head) => {
        answered.head = head;
      });
      call.on("status", (status) => {
        answered.status = status;
        resolve();
      });
    });
    expect(answered.head?.get("x-head")).toEqual(["1"]);
    expect(answered.status?.metadata.get("x-many")).toEqual(["a, b"]);
    expect(answered.status?.metadata.get("x-bytes-bin")).toEqual([Buffer.from([0, 255, 10])]);
    expect(answered.status?.metadata.get("agentid-decision")).toEqual([]);
    const arrived = service.arrived[0]?.metadata;
    expect(arrived?.get("authorization")).toEqual(["Bearer of-the-caller"]);
    expect(String(arrived?.get("x-forwarded-client-cert"))).not.toContain("agents/admin");
    expect(arrived?.get("agentid-ticket")).toEqual([]);
  });

  it("passes the service's own errors with their details", async () => {
    const details = new grpc.Metadata();
    details.set("grpc-status-details-bin", Buffer.from([8, 5]));
    service.handlers.Get = (_call, callback) =>
      callback({ code: grpc.status.NOT_FOUND, details: "no such ünvoice", metadata: details });
    const { error } = await unary(way.connect(), "x");
    expect([error?.code, error?.details]).toEqual([grpc.status.NOT_FOUND, "no such ünvoice"]);
    expect(error?.metadata.get("grpc-status-details-bin")).toEqual([Buffer.from([8, 5])]);
    const last = running.record.entries.at(-1);
    expect(last).toMatchObject({ kind: "call", fields: { grpcStatus: grpc.status.NOT_FOUND } });
  });

  it("passes a caller's cancellation on to the service", async () => {
    const cancelled = new Promise<void>((resolve) => {
      service.handlers.Follow = (call) => {
        call.write(Buffer.from("started"));
        call.on("cancelled", () => resolve());
      };
    });
    const call = way.connect().Follow();
    await once(call, "data");
    call.cancel();
    const [error] = (await once(call, "error")) as [grpc.ServiceError];
    expect(error.code).toBe(grpc.status.CANCELLED);
    await cancelled;
    await expect.poll(() => running.events.at(-1)).toMatchObject({ event: "call.ended", error: "caller-gone" });
  });

  it("passes the deadline on, and keeps it where the service does not", async () => {
    let left = 0;
    service.handlers.Get = (call) => {
      left = Number(call.getDeadline()) - Date.now();
    };
    const { error } = await unary(way.connect(), "x", { options: { deadline: Date.now() + 1_000 } });
    expect(error?.code).toBe(grpc.status.DEADLINE_EXCEEDED);
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(1_001);
  });

  it("is UNAVAILABLE where the service does not listen", async () => {
    await unary(way.connect(), "x");
    service.close();
    const { error } = await unary(way.connect(), "x", { options: { deadline: Date.now() + 10_000 } });
    expect(error?.code).toBe(grpc.status.UNAVAILABLE);
  });

  it("carries large messages unchanged", async () => {
    const message = randomBytes(16 * 1024 * 1024);
    const digest = (value: Buffer | undefined) =>
      createHash("sha256")
        .update(value ?? "")
        .digest("hex");
    const client = way.connect({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
    const { error, value } = await unary(client, message);
    expect(error).toBeNull();
    expect(digest(value)).toBe(digest(message));
  });

  it("carries many calls at once over one connection", async () => {
    const client = way.connect();
    const answers = await Promise.all(Array.from({ length: 400 }, (_, index) => unary(client, String(index))));
    expect(answers.map(({ value }) => String(value))).toEqual(answers.map((_, index) => String(index)));
  });
});

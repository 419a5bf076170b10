import { once } from "node:events";
import { connect } from "node:net";
import * as grpc from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { egressService } from "../../src/relay/running-service.js";
import { createOtlpTracer } from "../../src/telemetry/otlp-tracer.js";
import { runCollector } from "../telemetry/collector.js";
import { ledgerClient, runGrpcService } from "./grpc-service.js";
import { runOutside, target } from "./outside.js";
import { sendRaw } from "./raw-http.js";
import { type RunningRelay, runRelay } from "./running-relay.js";
import { echo, ends, eventually, plainTo, runTcpUpstream } from "./tcp-services.js";
import { CANARY, SPAN_ID, TRACE_ID, traced } from "./traced-relay.js";
import { runWebSocketService } from "./websocket-service.js";

const PARENT = `00-${TRACE_ID}-${SPAN_ID}-01`;
const ofTests = { "agentid.caller": "spiffe://shop.local/agents/tests" };
const open: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

function closing<Thing extends { close(): unknown }>(thing: Thing): Thing {
  open.push(() => thing.close());
  return thing;
}

describe("the spans of a call of gRPC", () => {
  const rules = `rules:
  - { name: ledger, allow: { from: agents/tests, to: ledger, path: /shop.Ledger/* } }
  - { name: no-secrets, deny: { from: agents/tests, to: ledger, path: /shop.Ledger/Secret } }
`;
  const metadata = (pairs: Record<string, string>) => {
    const made = new grpc.Metadata();
    for (const [name, value] of Object.entries({ "x-note": CANARY, ...pairs })) made.add(name, value);
    return made;
  };
  const unary = (running: RunningRelay, method: "Get" | "Secret", pairs: Record<string, string> = {}) =>
    new Promise<number | undefined>((resolve) => {
      const client = closing(ledgerClient(new URL(running.urlOf("ledger")).host));
      client[method](Buffer.from(CANARY), metadata(pairs), {}, (error) => resolve(error?.code));
    });

  it("go on from the caller's metadata through both legs to the service, and say service, method and status", async () => {
    const ledger = closing(await runGrpcService("ledger"));
    const { spans, client, server, sent } = await traced({ services: [ledger.service], rules, count: 2 }, (running) =>
      unary(running, "Get", { traceparent: PARENT, tracestate: "rojo=1" }),
    );
    expect(spans).toHaveLength(2);
    expect(client).toMatchObject({ traceId: TRACE_ID, parentSpanId: SPAN_ID, traceState: "rojo=1", status: 0 });
    expect(server).toMatchObject({ traceId: TRACE_ID, parentSpanId: client?.spanId, traceState: "rojo=1", status: 0 });
    const rpc = { "rpc.system": "grpc", "rpc.service": "shop.Ledger", "rpc.method": "Get", "rpc.grpc.status_code": 0 };
    for (const span of [client, server]) {
      expect(span?.name).toBe("shop.Ledger/Get");
      expect(span?.attributes).toMatchObject({ ...rpc, ...ofTests, "server.address": "ledger" });
    }
    expect(client?.attributes).toMatchObject({ "agentid.leg": "outbound" });
    expect(server?.attributes).toMatchObject({ "agentid.verdict": "ALLOW", "agentid.rule": "ledger" });
    const arrived = ledger.arrived[0]?.metadata;
    expect(arrived?.get("traceparent")).toEqual([`00-${TRACE_ID}-${server?.spanId}-01`]);
    expect([arrived?.get("tracestate"), arrived?.get("x-note")]).toEqual([["rojo=1"], [CANARY]]);
    expect(sent).toContain("shop.Ledger");
    expect(sent).not.toContain(CANARY);
  });

  it("show a denial, its rule, and an error where the call was made", async () => {
    const ledger = closing(await runGrpcService("ledger"));
    const { client, server } = await traced({ services: [ledger.service], rules, count: 2 }, async (running) => {
      expect(await unary(running, "Secret")).toBe(grpc.status.PERMISSION_DENIED);
    });
    expect(server?.attributes).toMatchObject({ "agentid.verdict": "DENY", "agentid.rule": "no-secrets" });
    expect(server?.attributes).toMatchObject({ "rpc.grpc.status_code": 7 });
    expect(server).toMatchObject({ status: 0, parentSpanId: client?.spanId });
    expect(client).toMatchObject({ status: 2, attributes: { "error.type": "7", "rpc.grpc.status_code": 7 } });
  });

  it("show what the service says went wrong, in trailers too", async () => {
    const ledger = closing(await runGrpcService("ledger"));
    ledger.handlers.List = (call) => {
      call.write(Buffer.from("one"));
      call.emit("error", { code: grpc.status.DATA_LOSS, details: CANARY });
    };
    const { client, server, sent } = await traced({ services: [ledger.service], rules, count: 2 }, async (running) => {
      const stream = closing(ledgerClient(new URL(running.urlOf("ledger")).host)).List(Buffer.from("1"));
      stream.resume();
      await once(stream, "error");
    });
    for (const span of [client, server]) {
      expect(span).toMatchObject({ status: 2, attributes: { "error.type": "15", "rpc.grpc.status_code": 15 } });
    }
    expect(sent).not.toContain(CANARY);
  });

  it("of a caller that goes away have no status", async () => {
    const ledger = closing(await runGrpcService("ledger"));
    const { client, server } = await traced({ services: [ledger.service], rules, count: 2 }, async (running) => {
      const stream = closing(ledgerClient(new URL(running.urlOf("ledger")).host)).Follow();
      stream.on("error", () => undefined);
      stream.write(Buffer.from("one"));
      await once(stream, "data");
      stream.cancel();
    });
    for (const span of [client, server]) {
      expect(span).toMatchObject({ status: 2, attributes: { "error.type": "aborted" } });
      expect(span?.attributes).not.toHaveProperty("rpc.grpc.status_code");
    }
  });

  it("are not collected where the caller says so, and its metadata passes untouched where nobody collects", async () => {
    const ledger = closing(await runGrpcService("ledger"));
    const unsampled = { traceparent: `00-${TRACE_ID}-${SPAN_ID}-00` };
    const { spans } = await traced({ services: [ledger.service], rules, count: 2 }, (running) =>
      unary(running, "Get", unsampled),
    );
    expect(spans).toEqual([]);
    expect(String(ledger.arrived[0]?.metadata.get("traceparent"))).toMatch(
      new RegExp(`^00-${TRACE_ID}-(?!${SPAN_ID})[0-9a-f]{16}-00$`),
    );
    const running = closing(await runRelay({ services: [ledger.service], rules }));
    await unary(running, "Get", { traceparent: PARENT, tracestate: "rojo=1" });
    expect(ledger.arrived[1]?.metadata.get("traceparent")).toEqual([PARENT]);
    expect(ledger.arrived[1]?.metadata.get("tracestate")).toEqual(["rojo=1"]);
  });
});

describe("the spans of a WebSocket", () => {
  const rules = "rules:\n  - { name: chat, allow: { from: agents/tests, to: chat, method: GET, path: /chat } }\n";
  const dial = (running: RunningRelay, path: string) => {
    const socket = new WebSocket(`${running.urlOf("chat").replace("http:", "ws:")}${path}`, {
      headers: { traceparent: PARENT, tracestate: "rojo=1", "x-note": CANARY },
      perMessageDeflate: false,
    });
    open.push(() => socket.terminate());
    socket.on("error", () => undefined);
    return socket;
  };
  const refusedWith = async (socket: WebSocket) => {
    const [, response] = (await once(socket, "unexpected-response")) as [unknown, { statusCode: number }];
    socket.terminate();
    return response.statusCode;
  };

  it("go on from the handshake through both legs, and say how much it carried, for how long", async () => {
    const chat = closing(await runWebSocketService("chat"));
    const { spans, client, server, sent } = await traced(
      { services: [chat.service], rules, count: 2 },
      async (running) => {
        const socket = dial(running, `/chat?token=${CANARY}`);
        await once(socket, "open");
        socket.send(CANARY);
        await once(socket, "message");
        socket.close(1000);
        await once(socket, "close");
      },
    );
    expect(spans).toHaveLength(2);
    expect(client).toMatchObject({ traceId: TRACE_ID, parentSpanId: SPAN_ID, traceState: "rojo=1", status: 0 });
    expect(server).toMatchObject({ traceId: TRACE_ID, parentSpanId: client?.spanId, status: 0 });
    // A masked frame of text and a masked one of close with its code; the answers to both are not masked.
    const bytes = { "agentid.sent": 6 + CANARY.length + 8, "agentid.received": 2 + CANARY.length + 4 };
    for (const span of [client, server]) {
      expect(span?.name).toBe("GET chat");
      expect(span?.attributes).toMatchObject({
        ...{ "http.request.method": "GET", "http.response.status_code": 101, "url.path": "/chat" },
        ...{ "network.protocol.name": "websocket", "agentid.open_ms": expect.any(Number) },
        ...{ ...bytes, ...ofTests },
      });
    }
    expect(server?.attributes).toMatchObject({ "agentid.verdict": "ALLOW", "agentid.rule": "chat" });
    const { traceparent, tracestate, "x-note": note } = chat.arrived[0]?.headers ?? {};
    expect([traceparent, tracestate, note]).toEqual([`00-${TRACE_ID}-${server?.spanId}-01`, "rojo=1", CANARY]);
    expect(sent).toContain("/chat");
    expect(sent).not.toContain(CANARY);
  });

  it("that is denied, or refused by its service, say so and carry nothing", async () => {
    const chat = closing(await runWebSocketService("chat"));
    chat.switching = (_, socket) => socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    const denied = await traced({ services: [chat.service], rules, count: 2 }, async (running) => {
      expect(await refusedWith(dial(running, "/admin"))).toBe(403);
    });
    expect(denied.server?.attributes).toMatchObject({ "agentid.verdict": "DENY", "http.response.status_code": 403 });
    expect(denied.server?.attributes).not.toHaveProperty("agentid.sent");
    expect(denied.client).toMatchObject({ status: 2, attributes: { "error.type": "403" } });
    const refused = await traced({ services: [chat.service], rules, count: 2 }, async (running) => {
      expect(await refusedWith(dial(running, "/chat"))).toBe(404);
    });
    expect(refused.server?.attributes).toMatchObject({ "agentid.verdict": "ALLOW", "http.response.status_code": 404 });
  });

  it("that is open when the relay ends are sent before the tracer does", async () => {
    const chat = closing(await runWebSocketService("chat"));
    const collector = closing(await runCollector());
    const tracer = createOtlpTracer({ url: collector.url, resource: {} });
    const running = await runRelay({
      ...{ services: [chat.service], rules },
      change: (parts) => ({ ...parts, tracer: () => tracer }),
    });
    await once(dial(running, "/chat"), "open");
    await running.close();
    await tracer.close();
    expect(collector.spans.map(({ kind }) => kind).sort()).toEqual([2, 3]);
  });

  it("need nobody who collects: then the handshake passes untouched", async () => {
    const chat = closing(await runWebSocketService("chat"));
    const running = closing(await runRelay({ services: [chat.service], rules }));
    await once(dial(running, "/chat"), "open");
    expect(chat.arrived[0]?.headers).toMatchObject({ traceparent: PARENT, tracestate: "rojo=1" });
  });
});

describe("the spans of a TCP connection", () => {
  const rules = "rules:\n  - { name: connects, allow: { from: agents/tests, to: orders, action: connect } }\n";

  it("belong together although bytes have no headers, and say how many went which way", async () => {
    const orders = closing(await runTcpUpstream("orders", echo));
    const { spans, client, server, sent } = await traced(
      { services: [orders.service], rules, count: 2 },
      async (running) => {
        const { socket, over } = await plainTo(running, "orders");
        socket.end(CANARY);
        expect(await over).toBe("end");
      },
    );
    expect(spans).toHaveLength(2);
    expect(client).toMatchObject({ parentSpanId: "", name: "connect orders", status: 0 });
    expect(server).toMatchObject({ traceId: client?.traceId, parentSpanId: client?.spanId, status: 0 });
    for (const span of [client, server]) {
      expect(span?.attributes).toMatchObject({
        ...{ "network.transport": "tcp", "server.address": "orders", "agentid.open_ms": expect.any(Number) },
        ...{ "agentid.received": CANARY.length, ...ofTests },
      });
      expect(span?.attributes).not.toHaveProperty("http.request.method");
    }
    // What our own legs tell each other first is not the caller's.
    expect(client?.attributes["agentid.sent"]).toBe(CANARY.length);
    expect(server?.attributes).toMatchObject({ "agentid.sent": CANARY.length, "agentid.rule": "connects" });
    expect(orders.begun.map(String)).toEqual([CANARY]);
    expect(sent).toContain("connect orders");
    expect(sent).not.toContain(CANARY);
  });

  it("that is denied has carried nothing", async () => {
    const orders = closing(await runTcpUpstream("orders", echo));
    const { server } = await traced({ services: [orders.service], rules: "rules: []\n", count: 2 }, async (running) => {
      const { socket, over } = await plainTo(running, "orders");
      socket.end();
      await over;
    });
    expect(server).toMatchObject({ name: "connect orders", status: 0 });
    expect(server?.attributes).toMatchObject({ "agentid.verdict": "DENY", "agentid.rule": "default" });
    expect(server?.attributes).not.toHaveProperty("agentid.sent");
  });

  it("that a change of rules has broken off say that, without the reason", async () => {
    const orders = closing(await runTcpUpstream("orders", echo));
    const { server, sent } = await traced({ services: [orders.service], rules, count: 2 }, async (running) => {
      const { socket, text, over } = await plainTo(running, "orders");
      socket.write("x");
      await eventually(text).toBe("x");
      running.setRules("rules: []\n");
      await running.relay.update([orders.service]);
      expect(await over).not.toBe("end");
      await eventually(() => ends(running)).toEqual([
        expect.objectContaining({ error: expect.stringMatching(/^denied-since: no rule allows/) }),
      ]);
    });
    expect(server).toMatchObject({ status: 2, attributes: { "error.type": "denied-since" } });
    expect(sent).not.toContain("no rule allows");
  });
});

describe("the span of a CONNECT", () => {
  const rules = "rules:\n  - { name: tunnels, allow: { from: agents/tests, to: egress/api, action: connect } }\n";
  const asking = (authority: string) =>
    `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nTraceparent: ${PARENT}\r\nTracestate: rojo=1\r\nX-Note: ${CANARY}\r\n\r\n`;
  async function outside() {
    const server = closing(await runOutside({ plain: true }));
    const api = target("api", server, { host: "api.test", connect: true, ca: undefined });
    const resolve = async () => [{ address: "127.0.0.1", family: 4 }];
    const change = <Parts>(parts: Parts) => ({ ...parts, resolve });
    return { server, options: { services: [egressService(api)], rules, change } };
  }
  const portOf = ({ relay }: RunningRelay) => Number(new URL(relay.proxyUrl() ?? "").port);

  it("goes on from its headers, says how much the tunnel carried, and nothing of it goes outside", async () => {
    const { server, options } = await outside();
    const { spans, client, sent } = await traced({ ...options, count: 1 }, async (running) => {
      const socket = connect({ port: portOf(running), host: "127.0.0.1", allowHalfOpen: true });
      open.push(() => socket.destroy());
      socket.write(asking(`api.test:${server.port}`));
      await once(socket, "data");
      socket.end(`GET /${CANARY} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n`);
      socket.resume();
      await once(socket, "close");
    });
    expect(spans).toHaveLength(1);
    expect(client).toMatchObject({ traceId: TRACE_ID, parentSpanId: SPAN_ID, traceState: "rojo=1" });
    expect(client).toMatchObject({ kind: 3, name: "CONNECT api", status: 0 });
    expect(client?.attributes).toMatchObject({
      ...{ "http.request.method": "CONNECT", "http.response.status_code": 200, "network.transport": "tcp" },
      ...{ "agentid.verdict": "ALLOW", "agentid.rule": "tunnels", ...ofTests },
      ...{ "agentid.sent": expect.any(Number), "agentid.received": expect.any(Number) },
    });
    expect(server.arrived).toMatchObject([{ url: `/${CANARY}` }]);
    expect(server.arrived[0]?.headers).not.toHaveProperty("traceparent");
    expect(sent).toContain("CONNECT api");
    expect(sent).not.toContain(CANARY);
  });

  it("that is refused says with what", async () => {
    const { options } = await outside();
    const { client, sent } = await traced({ ...options, count: 1 }, async (running) => {
      expect(await sendRaw(portOf(running), asking(`${CANARY}.test:443`))).toMatchObject({ status: 403 });
    });
    expect(client).toMatchObject({ name: "CONNECT proxy", status: 2, attributes: { "error.type": "target-unknown" } });
    expect(client?.attributes).toMatchObject({ "http.response.status_code": 403, "agentid.rule": "target-unknown" });
    expect(sent).not.toContain(CANARY);
  });
});

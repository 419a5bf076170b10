import { once } from "node:events";
import { request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sendRaw } from "./raw-http.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

let invoices: Upstream;
let running: RunningRelay;
let url: URL;

beforeEach(async () => {
  invoices = await runUpstream("invoices", "http", (request, response) => {
    request.resume().on("end", () => response.end("arrived"));
  });
  running = await runRelay({
    services: [invoices.service],
    rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: invoices } }\n",
    change: (parts) => ({ ...parts, upstreamTimeoutMs: 1_500 }),
  });
  url = new URL(`${running.urlOf("invoices")}/v1/x`);
});

afterEach(async () => {
  await running.close();
  invoices.close();
});

function upstreamOnce(): Promise<{ request: IncomingMessage; response: ServerResponse }> {
  return new Promise((resolve) => {
    invoices.answer = (request, response) => resolve({ request, response });
  });
}

const OK = "HTTP/1.1 200";

it.each([
  ["GET", "h2c", ""],
  ["POST", "h2c", "body"],
  ["GET", "TLS/1.2", ""],
])(
  "%s that offers an Upgrade to %s is answered in HTTP/1.1, and the service hears nothing of that",
  async (method, protocol, body) => {
    const asked = [
      `${method} /v1/x HTTP/1.1`,
      `Host: ${url.host}`,
      "Connection: Upgrade, HTTP2-Settings",
      `Upgrade: ${protocol}`,
      "HTTP2-Settings: AAMAAABk",
      ...[`Content-Length: ${body.length}`, "", body],
    ].join("\r\n");
    const socket = connect(Number(url.port), "127.0.0.1");
    socket.write(asked + asked.replace("Connection: ", "Connection: close, "));
    expect((await text(socket)).match(/HTTP\/1\.1 \d+|arrived/g)).toEqual([OK, "arrived", OK, "arrived"]);
    expect(invoices.arrived.map((one) => one.method)).toEqual([method, method]);
    for (const { headers } of invoices.arrived) {
      expect(headers).toMatchObject({ connection: "keep-alive" });
      expect(Object.keys(headers).filter((name) => /upgrade|http2/.test(name))).toEqual([]);
    }
  },
);

describe("streams", () => {
  it("passes each server-sent event on at once, the head before the first", async () => {
    const upstream = upstreamOnce();
    const sent = httpRequest(url).end();
    const { response } = await upstream;
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.flushHeaders();
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    for (const event of ["data: 1\n\n", "data: 2\n\n"]) {
      response.write(event);
      const [chunk] = (await once(answer, "data")) as [Buffer];
      expect(chunk.toString()).toBe(event);
    }
    response.end();
    await once(answer.resume(), "end");
  });

  it("ends the call upstream when the caller goes away", async () => {
    const upstream = upstreamOnce();
    const sent = httpRequest(url).end();
    sent.on("error", () => undefined);
    const { response } = await upstream;
    const closed = once(response, "close");
    sent.destroy();
    await closed;
    expect(response.writableFinished).toBe(false);
    await expect.poll(() => running.events.at(-1)).toMatchObject({ event: "call.ended", error: "caller-gone" });
  });

  it("breaks the answer off when the service does, so that half an answer is not taken for one", async () => {
    const upstream = upstreamOnce();
    const sent = httpRequest(url).end();
    const { response } = await upstream;
    response.write("half");
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    await once(answer, "data");
    const broken = once(answer, "error");
    response.destroy();
    await broken;
    expect(answer.complete).toBe(false);
  });

  it("carries large bodies both ways, no more of them in memory than the streams hold", async () => {
    invoices.answer = (request, response) => void request.pipe(response);
    const size = 64 * 1024 * 1024;
    const block = Buffer.alloc(1024 * 1024, "x");
    const sent = httpRequest(url, { method: "POST" });
    const answered = once(sent, "response");
    let written = 0;
    let read = 0;
    const before = process.memoryUsage().rss;
    let peak = before;
    const writing = (async () => {
      while (written < size) {
        written += block.length;
        if (!sent.write(block)) await once(sent, "drain");
      }
      sent.end();
    })();
    const [answer] = (await answered) as [IncomingMessage];
    for await (const chunk of answer) {
      read += (chunk as Buffer).length;
      peak = Math.max(peak, process.memoryUsage().rss);
    }
    await writing;
    expect(read).toBe(size);
    expect(peak - before).toBeLessThan(size * 2);
  });

  it("holds a fast service back while its caller does not read", async () => {
    let given = 0;
    const stuck = new Promise<void>((resolve) => {
      invoices.answer = (_request, response) => {
        const block = Buffer.alloc(256 * 1024);
        const fill = () => {
          while (given < 512 * 1024 * 1024) {
            given += block.length;
            if (!response.write(block)) {
              // No drain within a round trip of the loop after loop: the pipe is full.
              const waiting = setTimeout(resolve, 500);
              response.once("drain", () => {
                clearTimeout(waiting);
                fill();
              });
              return;
            }
          }
          resolve();
        };
        fill();
      };
    });
    const sent = httpRequest(url).end();
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    answer.pause();
    await stuck;
    expect(given).toBeLessThan(64 * 1024 * 1024);
    answer.destroy();
  });
});

describe("bodies", () => {
  it.each([
    { method: "HEAD", body: undefined, arrives: "" },
    { method: "GET", body: undefined, arrives: "" },
    { method: "DELETE", body: "x", arrives: "x" },
    { method: "PATCH", body: "patched", arrives: "patched" },
    { method: "POST", body: "", arrives: "" },
  ])("$method arrives with its body and nothing else", async ({ method, body, arrives }) => {
    let arrived: string | undefined;
    invoices.answer = async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      arrived = `${request.method} ${Buffer.concat(chunks).toString()}`;
      response
        .writeHead(method === "HEAD" ? 204 : 200, { "X-Length": "7" })
        .end(method === "HEAD" ? undefined : "answer!");
    };
    const response = await fetch(url, { method, ...(body === undefined ? {} : { body }) });
    expect(await response.text()).toBe(method === "HEAD" ? "" : "answer!");
    expect(response.headers.get("x-length")).toBe("7");
    expect(arrived).toBe(`${method} ${arrives}`);
  });

  it("a chunked body arrives whole, its trailers do not", async () => {
    let trailers: unknown;
    let arrived = "";
    invoices.answer = (request, response) => {
      request.on("data", (chunk) => {
        arrived += chunk;
      });
      request.on("end", () => {
        trailers = { ...request.trailers };
        response.end("done");
      });
    };
    const head = `POST /v1/x HTTP/1.1\r\nHost: ${url.host}\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n`;
    const answer = await sendRaw(
      Number(url.port),
      `${head}3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nAuthorization: forged\r\n\r\n`,
    );
    expect(answer.status).toBe(200);
    expect({ arrived, trailers }).toEqual({ arrived: "abcde", trailers: {} });
  });
});

describe("headers", () => {
  it("removes what only a relay may say, what Connection names and what is for one hop, and sets its own", async () => {
    await sendRaw(
      Number(url.port),
      [
        "GET /v1/x HTTP/1.1",
        `Host: ${url.host}`,
        "Connection: keep-alive, X-Secret, X-Forwarded-Client-Cert",
        "X-Secret: 1",
        "X-Forwarded-For: 1.2.3.4",
        "X_Forwarded_Client_Cert: URI=spiffe://shop.local/agents/admin",
        "X-Forwarded-Client-Cert: URI=spiffe://shop.local/agents/admin",
        "Forwarded: for=1.2.3.4",
        "Client-Cert: :AAAA:",
        "Client-Cert-Chain: :AAAA:",
        "Txn-Token: a",
        "X-Original-URL: /admin",
        "X-HTTP-Method-Override: DELETE",
        "Agentid-Ticket: guessed",
        "TE: trailers",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "X-Kept: yes",
        "",
        "",
      ].join("\r\n"),
    );
    const arrived = invoices.arrived.at(-1)?.rawHeaders ?? [];
    const lines = arrived.flatMap((name, index) =>
      index % 2 === 0 ? [`${name.toLowerCase()}: ${arrived[index + 1]}`] : [],
    );
    const uri = "URI=spiffe://shop.local/agents/tests";
    expect(lines.filter((line) => !line.startsWith("connection:"))).toEqual([
      "host: localhost",
      "x-kept: yes",
      expect.stringMatching(
        new RegExp(`^x-forwarded-client-cert: By=spiffe://shop.local/services/invoices;Hash=[0-9a-f]{64};${uri}$`),
      ),
      expect.stringMatching(/^client-cert: :MII[A-Za-z0-9+/]+={0,2}:$/),
    ]);
  });

  it("takes out what the service says for one hop, and its claim to a decision", async () => {
    invoices.answer = (_request, response) => {
      response.writeHead(200, [
        ...["Connection", "close, X-Hop"],
        ...["X-Hop", "1"],
        ...["Agentid-Decision", "forged"],
        ...["Set-Cookie", "a=1"],
        ...["Set-Cookie", "b=2"],
      ]);
      response.end("x");
    };
    const response = await fetch(url);
    expect(response.headers.get("x-hop")).toBeNull();
    expect(response.headers.get("agentid-decision")).toMatch(/^[0-9a-z]{16}$/);
    expect(response.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
  });

  it("serves an HTTP/1.0 client without keep-alive to the end", async () => {
    invoices.answer = (_request, response) => {
      response.write("no ");
      response.end("length");
    };
    const answer = await sendRaw(Number(url.port), `GET /v1/x HTTP/1.0\r\nHost: ${url.host}\r\n\r\n`);
    expect(answer).toMatchObject({ status: 200, body: "no length" });
  });
});

describe("a service that fails", () => {
  it("is a 502 where nothing listens, and a call on record", async () => {
    invoices.close();
    const response = await fetch(url);
    expect(response.status).toBe(502);
    expect(await response.json()).toMatchObject({ code: "upstream-unreachable" });
    expect(running.record.entries.at(-1)).toMatchObject({ kind: "call", fields: { error: "upstream-unreachable" } });
  });

  it("is a 502 where it hangs up without an answer", async () => {
    invoices.answer = (request) => request.socket.destroy();
    expect((await fetch(url)).status).toBe(502);
  });

  it("is a 504 where it does not answer in time", async () => {
    invoices.answer = () => undefined;
    const response = await fetch(url);
    expect(response.status).toBe(504);
  });
});

describe("the record", () => {
  it("holds the decision before the call arrives, and the outcome before the answer", async () => {
    let kindsAtArrival: string[] = [];
    invoices.answer = (_request, response) => {
      kindsAtArrival = running.record.entries.map(({ kind }) => kind);
      response.end("x");
    };
    await (await fetch(url)).text();
    expect(kindsAtArrival.at(-1)).toBe("decision");
    expect(running.record.entries.at(-1)).toMatchObject({ kind: "call", fields: { status: 200 } });
  });

  it("holds the denial that follows from a decision point that fails (D13)", async () => {
    const broken = await runRelay({
      services: [invoices.service],
      rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: invoices } }\n",
      change: (parts) => ({
        ...parts,
        decisionPoint: () => {
          throw new Error("the policy engine is gone");
        },
      }),
    });
    expect((await fetch(url)).status).toBe(200);
    const arrived = invoices.arrived.length;
    const response = await fetch(`${broken.urlOf("invoices")}/v1/x`);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ code: "decision-failed", rule: "decision-failed" });
    expect(broken.record.entries.findLast(({ kind }) => kind === "decision")?.fields).toMatchObject({
      verdict: "DENY",
    });
    expect(invoices.arrived.length).toBe(arrived);
    await broken.close();
  });

  it("that cannot be written denies: nothing arrives at the service", async () => {
    expect((await fetch(url)).status).toBe(200);
    const arrived = invoices.arrived.length;
    running.record.writable = false;
    const response = await fetch(url);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ code: "record-unwritable" });
    expect(invoices.arrived.length).toBe(arrived);
    running.record.writable = true;
    expect((await fetch(url)).status).toBe(200);
  });
});

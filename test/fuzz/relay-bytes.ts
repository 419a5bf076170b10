import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { type RunningRelay, runRelay } from "../relay/running-relay.js";
import { type Pieces, someBytes } from "./http-bytes.js";
import { runListeningService } from "./listening-service.js";
import { choicesFrom } from "./random.js";
import type { StrictRequest } from "./strict-http.js";

/**
 * Sends malformed and half-malformed bytes to both legs, and holds what arrives at the service against what was decided: nothing arrives that was not
 * allowed, what arrives has one reading, and no connection is left hanging.
 */

export type Leg = "outbound" | "inbound";

export interface Finding {
  readonly leg: Leg;
  readonly seed: number;
  readonly what: string;
  readonly sent: string;
}

export interface FuzzedRelay {
  /** Sends the bytes of `seed`; what is wrong with what became of them, or undefined. */
  run(leg: Leg, seed: number): Promise<Finding | undefined>;
  /** How much was allowed, denied and arrived: a run in which nothing got through would prove nothing. */
  readonly seen: { allowed: number; denied: number; arrived: number };
  close(): Promise<void>;
}

const RULES = `rules:
  - { name: some, allow: { from: agents/tests, to: invoices, method: [GET, POST, HEAD], path: /** } }
  - { name: none, deny: { to: invoices, path: /admin/** } }
  - { name: nor, deny: { to: invoices, path: /admin } }
`;
const HANGING_MS = 10_000;
const QUIET_MS = 250;
/** A sound request after whatever it was: its answer ends the connection. */
const LAST = "GET /v1/last HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";
const SINGLE = /^(?:host|content-type|content-length|authorization|cookie|accept-encoding)$/;
const CALLER = "URI=spiffe://shop.local/agents/tests";
/** What a service must never be told in a caller's words. */
const NEVER =
  /^(?:te|trailer|upgrade|keep-alive|proxy-.*|expect|forwarded|x.forwarded.(?!client-cert$).*|agentid.*|x.original.*|x.http.method.*|origin|transfer_encoding)$/i;

export async function fuzzedRelay(): Promise<FuzzedRelay> {
  const service = await runListeningService("invoices");
  const running = await runRelay({ services: [service.service], rules: RULES });
  const seen = { allowed: 0, denied: 0, arrived: 0 };
  /** What was allowed and has not arrived: it may yet, when its caller has gone. */
  const open: string[] = [];
  const portOf = (leg: Leg) => {
    const { url, mtls } = running.relay.addressesOf("invoices") ?? { url: "http://127.0.0.1:0", mtls: { port: 0 } };
    return leg === "outbound" ? Number(new URL(url).port) : mtls.port;
  };
  return {
    seen,
    async run(leg, seed) {
      const port = portOf(leg);
      const host = `127.0.0.1:${port}`;
      const pieces = [...someBytes(choicesFrom(seed), host), Buffer.from(LAST.replace("HOST", host))];
      const [arrivedBefore, recordedBefore, faultsBefore] = [
        service.arrived.length,
        running.record.entries.length,
        service.faults.length,
      ];
      const found = (what: string): Finding => ({ leg, seed, what, sent: Buffer.concat(pieces).toString("latin1") });
      const answered = await send(leg, port, running, pieces);
      if (answered === "hangs") return found("the connection was neither answered nor closed");
      const arrived = service.arrived.slice(arrivedBefore);
      const decided = running.record.entries
        .slice(recordedBefore)
        .filter(({ kind, fields }) => kind === "decision" && fields.leg === "inbound")
        .map(({ fields }) => fields as { verdict: string; action?: string; target?: string });
      const allowed = decided.filter(({ verdict }) => verdict === "ALLOW");
      seen.allowed += allowed.length;
      seen.denied += running.record.entries
        .slice(recordedBefore)
        .filter(({ fields }) => fields.verdict === "DENY").length;
      seen.arrived += arrived.length;
      const fault = service.faults[faultsBefore];
      if (fault !== undefined) return found(`the service cannot read what was sent on: ${fault}`);
      if (answered !== "" && !answered.startsWith("HTTP/1.1 "))
        return found(`no HTTP in the answer: ${answered.slice(0, 80)}`);
      // A caller whose next request is garbage gets no answer to the one before; it never gets one that is not its own.
      const answers = answered.match(/HTTP\/1\.1 200 OK/g)?.length ?? 0;
      if (answers > arrived.length) return found(`${arrived.length} arrived, ${answers} were answered`);
      open.push(...allowed.map(({ action, target }) => `${action} ${target}`));
      const wrong = wrongIn(arrived, open);
      return wrong === undefined ? undefined : found(wrong);
    },
    async close() {
      await running.close();
      service.close();
    },
  };
}

function wrongIn(arrived: readonly StrictRequest[], open: string[]): string | undefined {
  for (const { method, target, headers } of arrived) {
    const path = decodeURIComponent(target.split("?")[0] ?? "");
    const at = open.indexOf(`${method} ${path}`);
    if (at === -1) return `${method} ${target} arrived, allowed was ${JSON.stringify(open)}`;
    open.splice(at, 1);
    if (/^\/admin(?:\/|$)/.test(path) || !["GET", "POST", "HEAD"].includes(method))
      return `${method} ${target} was allowed`;
    if (new URL(target, "http://service").pathname !== target.split("?")[0]) return `${target} has two readings`;
    const names = headers.map(([name]) => name.toLowerCase());
    const twice = names.find((name, at) => SINGLE.test(name) && names.indexOf(name) !== at);
    if (twice !== undefined) return `two headers ${twice} arrived`;
    for (const [name, value] of headers) {
      const lower = name.toLowerCase();
      if (NEVER.test(name)) return `the header ${name} arrived`;
      if (lower === "connection" && !/^(?:keep-alive|close)$/.test(value)) return `Connection: ${value} arrived`;
      if (lower === "host" && value !== "localhost") return `Host: ${value} arrived`;
      if (lower === "x-forwarded-client-cert" && !value.endsWith(CALLER)) return `${name}: ${value} arrived`;
    }
    const said = headers
      .filter(([name]) => /^(?:x.forwarded.client.cert|client.cert)$/i.test(name))
      .map(([name]) => name);
    if (said.join() !== "X-Forwarded-Client-Cert,Client-Cert") return `of the caller was said: ${said}`;
  }
  return undefined;
}

/** What came back until the connection was closed. */
async function send(leg: Leg, port: number, running: RunningRelay, pieces: Pieces): Promise<string | "hangs"> {
  const socket: Socket =
    leg === "outbound"
      ? connect(port, "127.0.0.1")
      : connectTls({
          ...{ host: "127.0.0.1", port, rejectUnauthorized: false },
          secureContext: secureContextOf(running.svidOf("agents/tests")),
        });
  return new Promise((resolve) => {
    let received = "";
    // A request that is not over is waited for; that ends it.
    const quiet = setTimeout(() => socket.end(), QUIET_MS);
    const patience = setTimeout(() => {
      socket.destroy();
      resolve("hangs");
    }, HANGING_MS);
    socket.setEncoding("latin1");
    socket.setNoDelay(true);
    socket.on("data", (chunk) => {
      received += String(chunk);
      quiet.refresh();
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(quiet);
      clearTimeout(patience);
      resolve(received);
    });
    socket.once(leg === "outbound" ? "connect" : "secureConnect", () => void write(socket, pieces));
  });
}

async function write(socket: Socket, pieces: Pieces): Promise<void> {
  for (const piece of pieces) {
    if (socket.destroyed || socket.writableEnded) return;
    socket.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { agentid, bin, giveTo, type RunningDev, startDev, startProgram } from "./agentid.js";
import { canSandbox, makeSandboxedProject } from "./sandboxed.js";

// Each launch starts two Nodes, and most tests several.
vi.setConfig({ testTimeout: 90_000 });

const root = dirname(dirname(bin));

/** An agent that knows its SVID: it calls the relay's inbound leg in mutual TLS of its own, by our client for Node. */
const AGENT = `
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { connect as connectBare } from "node:tls";
import { connectTls, createSpiffeFetch, createX509Source, oneOf } from ${JSON.stringify(join(root, "dist/client/spiffe/index.js"))};
const source = await createX509Source();
const invoices = oneOf("spiffe://shop.local/services/invoices");
const address = process.env.AGENTID_MTLS_INVOICES;
const [host, port] = address.split(":");
const ends = (socket) => new Promise((resolve) => {
  let text = "";
  socket.on("data", (data) => { text += data; });
  socket.once("error", ({ code }) => resolve(code));
  socket.once("close", () => resolve(text));
});
const ways = {
  async fetch(path) {
    const fetch = createSpiffeFetch(source, invoices);
    const answer = await fetch("https://" + address + path);
    const text = await answer.text();
    await fetch.close();
    return answer.status + " " + text;
  },
  async serial() {
    const socket = await connectTls(source, { host, port: Number(port), authorize: invoices });
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  },
  async nobody() {
    const socket = connectBare({ host, port: Number(port), rejectUnauthorized: false });
    socket.once("secureConnect", () => socket.write("GET /v1/x HTTP/1.1\\r\\nHost: " + address + "\\r\\n\\r\\n"));
    return (await ends(socket)).split("\\r\\n")[0];
  },
  async held() {
    const socket = await connectTls(source, { host, port: Number(port), authorize: invoices });
    console.log("connected");
    await ends(socket);
    return "dropped";
  },
  async port(number) {
    const socket = connect(Number(number), "127.0.0.1");
    socket.once("connect", () => { socket.end(); });
    return (await ends(socket)) || "connected";
  },
  async variable(name) {
    return String(process.env[name]);
  },
};
console.log("up", process.pid);
createInterface({ input: process.stdin }).on("line", async (line) => {
  const [way, word] = line.split(" ");
  console.log(JSON.stringify(await ways[way](word).catch((thrown) => thrown.code ?? thrown.message)));
});
`;

type Direct = ReturnType<typeof startProgram> & { ask(way: string): Promise<unknown> };

describe.skipIf(!canSandbox)("an agent that does mutual TLS itself, in its sandbox", () => {
  const command = [process.execPath, "agents/direct.mjs"];
  const read = JSON.stringify(["dist", "node_modules", "package.json"].map((name) => join(root, name)));
  const launch = (more: string) => `{ command: ${JSON.stringify(command)}${more} }`;
  // A service that is no part of the trust domain's relay, and takes whoever connects.
  const elsewhere = createServer((socket) => socket.end("elsewhere"));
  const programs: ReturnType<typeof startProgram>[] = [];
  let dev: RunningDev;
  let project: string;
  let home: string;
  let port: number;

  beforeAll(async () => {
    elsewhere.listen(0, "127.0.0.1");
    await once(elsewhere, "listening");
    const address = elsewhere.address();
    port = typeof address === "object" && address !== null ? address.port : 0;
    ({ project, home } = makeSandboxedProject({
      more: `  agents/direct:\n    launch: ${launch(`, sandbox: { read: ${read} }`)}\n  agents/outside:\n    launch: ${launch("")}`,
      services: `  legacy: { http: { mtls: "127.0.0.1:${port}" } }`,
    }));
    const allow = (name: string) =>
      `  - { name: ${name}-reads, allow: { from: agents/${name}, to: services/invoices, method: GET, path: /v1/** } }\n`;
    writeFileSync(join(project, "policies", "direct.yaml"), `rules:\n${allow("direct")}${allow("outside")}`);
    writeFileSync(join(project, "agents", "direct.mjs"), AGENT);
    giveTo(project);
    dev = await startDev(project, [], { HOME: home });
  });
  afterAll(async () => {
    for (const program of programs) await program.end();
    await dev?.stop();
    elsewhere.close();
  });

  async function launched(...words: string[]): Promise<Direct> {
    const args = [bin, "run", ...words, "--", ...command];
    const program = startProgram(process.execPath, args, { cwd: project, env: { HOME: home } });
    programs.push(program);
    expect(await program.line()).toMatch(/^up /);
    return {
      ...program,
      async ask(way) {
        program.write(`${way}\n`);
        return JSON.parse(await program.line());
      },
    };
  }

  it("reaches the inbound leg as itself, and is decided about there; without a certificate nobody is let in", async () => {
    for (const [words, name] of [
      [["--sandbox", "agents/direct"], "agents/direct"],
      [["agents/outside"], "agents/outside"],
    ] as const) {
      const agent = await launched(...words);
      expect(await agent.ask("fetch /v1/x"), name).toMatch(new RegExp(`^200 .*URI=spiffe://shop\\.local/${name}$`));
      expect(await agent.ask("fetch /other"), name).toMatch(/^403 /);
      expect(await agent.ask("nobody"), name).toBe("HTTP/1.1 401 Unauthorized");
    }
  });

  it("reaches no service around the relay: one that speaks mutual TLS itself is reached by the outbound leg only", async () => {
    const [inside, outside] = [await launched("--sandbox", "agents/direct"), await launched("agents/outside")];
    expect(await outside.ask(`port ${port}`)).toBe("elsewhere");
    expect(await inside.ask(`port ${port}`)).toBe("ECONNREFUSED");
    expect(await inside.ask("variable AGENTID_MTLS_LEGACY")).toBe("undefined");
    expect(await inside.ask("variable AGENTID_URL_LEGACY")).toMatch(/^http:/);
    expect(await inside.ask("variable AGENTID_MTLS_INVOICES")).toBe(dev.ready.services.invoices?.mtls);
  });

  it("meets the service's new certificate after a rotation, as everybody outside does", async () => {
    const [inside, outside] = [await launched("--sandbox", "agents/direct"), await launched("agents/outside")];
    const before = await inside.ask("serial");
    expect(before).toMatch(/^[0-9A-F]+$/);
    expect(await outside.ask("serial")).toBe(before);
    expect(await agentid(["rotate", "services/invoices"], { cwd: project })).toMatchObject({ code: 0 });
    const after = await inside.ask("serial");
    expect(after).toMatch(/^[0-9A-F]+$/);
    expect(after).not.toBe(before);
    expect(await outside.ask("serial")).toBe(after);
  });

  it("is dropped at once when it is revoked, and let in no more", async () => {
    const inside = await launched("--sandbox", "agents/direct");
    inside.write("held\n");
    expect(await inside.line()).toBe("connected");
    expect(await inside.ask("fetch /v1/x")).toMatch(/^200/);
    expect(await agentid(["revoke", "agents/direct"], { cwd: project })).toMatchObject({ code: 0 });
    expect(JSON.parse(await inside.line())).toBe("dropped");
    expect(await inside.ask("fetch /v1/x")).not.toMatch(/^200/);
    expect(await agentid(["revoke", "--undo", "agents/direct"], { cwd: project })).toMatchObject({ code: 0 });
  });
});

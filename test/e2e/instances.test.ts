import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { credentials, Metadata } from "@grpc/grpc-js";
import { decodeJwt } from "jose";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { SpiffeWorkloadAPIClient, type X509BundlesResponse } from "../../src/workload-api/generated/workload.js";
import { bin, makeProject, python, type RunningDev, startDev, startProgram } from "./agentid.js";

/** What an instance had is never good again, whoever has its name next. */

const py = python ?? "python3";
const node = process.execPath;
const TWIN = "spiffe://shop.local/agents/builder/twin";

/** Runs each line in a shell and says how it ended. */
const AGENT = `import subprocess, sys
print("up", flush=True)
for line in sys.stdin:
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    print(done.returncode, (done.stdout + done.stderr).replace("\\n", " | "), flush=True)
`;
const SERVICE = `require("node:http").createServer((_, response) => response.end("{}")).listen(process.env.AGENTID_LISTEN);
`;
const CONFIG = `trustDomain: shop.local
identities:
  agents/tester: { uid: ${process.getuid?.() ?? 0} }
  agents/builder:
    launch: { command: ${JSON.stringify([py, "agents/builder.py"])}, children: true, instances: true }
  agents/lead:
    launch: { command: ${JSON.stringify([py, "agents/lead.py"])}, subagents: [agents/builder] }
  services/invoices: { service: invoices }
services:
  invoices: { http: { command: [${JSON.stringify(node)}, services/invoices.js] } }
reload: auto
`;
const POLICY = `rules:
  - name: agents-read
    allow: { from: agents/**, to: services/invoices, method: GET, path: /v1/** }
`;

type Agent = ReturnType<typeof startProgram>;

interface Taken {
  readonly cert: string;
  readonly key: string;
  readonly serial: string;
  readonly token: string;
}

describe.skipIf(python === undefined)("the credentials of an instance", () => {
  const project = makeProject({
    "agentid.yaml": CONFIG,
    "policies/shop.yaml": POLICY,
    "services/invoices.js": SERVICE,
    "agents/builder.py": AGENT,
    "agents/lead.py": AGENT,
  });
  let dev: RunningDev;
  const agents: Agent[] = [];
  const sockets: TLSSocket[] = [];
  const clients: SpiffeWorkloadAPIClient[] = [];

  beforeAll(async () => {
    dev = await startDev(project);
  });
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.destroy();
    for (const client of clients.splice(0)) client.close();
  });
  afterAll(async () => {
    for (const agent of agents) await agent.end();
    await dev.stop();
  });

  async function launch(...args: string[]): Promise<Agent> {
    const agent = startProgram(node, [bin, "run", ...args], { cwd: project });
    agents.push(agent);
    expect(await agent.line()).toBe("up");
    return agent;
  }
  const launchTwin = () => launch("builder", "--instance", "twin", "--", py, "agents/builder.py");
  async function tell(agent: Agent, line: string): Promise<string> {
    agent.write(`${line}\n`);
    return agent.line();
  }
  /** What `agent` is given, kept in a file: it may be anywhere else now. */
  async function take(agent: Agent, folder: string): Promise<Taken> {
    const fetch = `${node} ${bin} svid fetch --write ${folder}`;
    expect(await tell(agent, `${fetch} && ${fetch} --audience orders`)).toMatch(/^0 /);
    const text = (name: string) => readFileSync(join(project, folder, name), "utf8");
    const leaf = new X509Certificate(text("svid.pem"));
    expect(leaf.subjectAltName).toContain("agents/builder");
    const serial = leaf.serialNumber.toLowerCase();
    return { cert: text("svid.pem"), key: text("key.pem"), serial, token: text("token.jwt").trim() };
  }
  async function dial({ cert, key }: Taken): Promise<TLSSocket> {
    const [host = "", port = ""] = dev.ready.services.invoices?.mtls.split(":") ?? [];
    const socket = connect({ host, port: Number(port), cert, key, rejectUnauthorized: false });
    sockets.push(socket);
    socket.on("error", () => undefined);
    await once(socket, "secureConnect");
    return socket;
  }
  async function ask(socket: TLSSocket): Promise<string> {
    socket.write(`GET /v1/invoices HTTP/1.1\r\nhost: 127.0.0.1:${socket.remotePort}\r\n\r\n`);
    const [chunk] = (await Promise.race([once(socket, "data"), once(socket, "close")])) as [Buffer | boolean];
    return Buffer.isBuffer(chunk) ? (chunk.toString().split("\r\n")[0] ?? "") : "closed";
  }
  const client = () => {
    const own = new SpiffeWorkloadAPIClient(dev.ready.workloadApi, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
    });
    clients.push(own);
    return own;
  };
  const secure = () => {
    const metadata = new Metadata();
    metadata.set("workload.spiffe.io", "true");
    return metadata;
  };
  const validate = ({ token }: Taken): Promise<string> =>
    new Promise((resolve) => {
      client().validateJwtsvid({ audience: "orders", svid: token }, secure(), (error, answer) =>
        resolve(error?.details ?? answer.spiffeId),
      );
    });
  /** The first revocation list that names `serial`, in hex. */
  const listNaming = (serial: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const call = client().fetchX509Bundles({}, secure());
      call.on("error", reject);
      call.on("data", ({ crl }: X509BundlesResponse) => {
        const list = Buffer.concat(crl).toString("hex");
        if (!list.includes(serial)) return;
        call.removeListener("error", reject);
        call.on("error", () => undefined);
        call.cancel();
        resolve(list);
      });
    });
  const OK = "HTTP/1.1 200 OK";
  const REFUSED = "HTTP/1.1 401 Unauthorized";

  it("are good for its own launch alone: not for nobody, not for the next one of its name, not after a restart", async () => {
    const first = await launchTwin();
    const before = await take(first, "first");
    const connection = await dial(before);
    expect([await ask(connection), await validate(before)]).toEqual([OK, TWIN]);

    const closed = once(connection, "close");
    await first.end();
    await closed;
    expect(await ask(await dial(before))).toBe(REFUSED);
    expect(await validate(before)).toContain("has ended");

    const after = await take(await launchTwin(), "second");
    expect(after.serial).not.toBe(before.serial);
    expect([await ask(await dial(after)), await validate(after)]).toEqual([OK, TWIN]);
    expect(await ask(await dial(before))).toBe(REFUSED);
    expect(await validate(before)).toContain("an earlier launch");
    const list = await listNaming(before.serial);
    expect(list).not.toContain(after.serial);

    await dev.stop("SIGKILL");
    dev = await startDev(project);
    const last = await take(await launchTwin(), "third");
    expect([await ask(await dial(last)), await validate(last)]).toEqual([OK, TWIN]);
    expect([await ask(await dial(after)), await ask(await dial(before))]).toEqual([REFUSED, REFUSED]);
    expect(await validate(after)).toContain("an earlier launch");
  });

  it("say who launched it, tokens as certificates do; and its token is refused while that one is revoked", async () => {
    const lead = await launch("lead", "--", py, "agents/lead.py");
    const command = `${node} ${bin} run builder -- ${py} agents/builder.py`;
    const fetch = `${node} ${bin} svid fetch --audience orders --write below`;
    expect(await tell(lead, `echo '${fetch}' | ${command}`)).toMatch(/^0 up \| 0 /);
    const token = readFileSync(join(project, "below", "token.jwt"), "utf8").trim();
    expect(decodeJwt(token)["agentid:launched_by"]).toEqual(["spiffe://shop.local/agents/lead"]);
    const taken: Taken = { cert: "", key: "", serial: "", token };
    expect(await validate(taken)).toBe("spiffe://shop.local/agents/builder");
    const revoke = startProgram(node, [bin, "revoke", "agents/lead", "--json"], { cwd: project });
    await once(revoke.child, "close");
    expect(await validate(taken)).toContain("agents/lead, which launched it, is revoked");
  });
});

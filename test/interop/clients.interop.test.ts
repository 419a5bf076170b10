import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type RequestListener, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, makeProject, type RunningDev, run, startDev, startProgram } from "../e2e/agentid.js";
import { type Answered, type Asked, answersOf, found, type HttpClient, httpClients, missing } from "./http-clients.js";
import { fileOf, type Nginx, startNginx } from "./nginx.js";

/**
 * HTTP clients and a server that nobody here wrote, through both legs. The measure is the same client without the relay: what it sees of an
 * allowed call is the same. What is refused is seen in the client's own terms, and never by the service.
 */

const clients = await httpClients();
const nginxProgram = found("nginx");
const ab = found("ab");
const go = clients.find(({ identity }) => identity === "go");
const lacksNginx = missing("HTTP clients at nginx", { nginx: nginxProgram });

const RULES = `rules:
  - { name: open, allow: { from: "agents/*", to: [web, inside, echo], path: /open/** } }
`;

let nginx: Nginx | undefined;
let project: string;
let dev: RunningDev;
const streams: ServerResponse[] = [];
/** What reached the service of the test's own, which reads bodies and streams. */
const arrived: { method: string; url: string; headers: NodeJS.Dict<string | string[]> }[] = [];

const echoAnswer: RequestListener = (request, response) => {
  const { method = "", url = "", headers } = request;
  arrived.push({ method, url, headers });
  if (url === "/open/events") {
    response.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\n\n");
    streams.push(response);
    return;
  }
  const digest = createHash("sha256");
  request.on("data", (chunk: Buffer) => digest.update(chunk));
  request.on("end", () => response.end(digest.digest("hex")));
};
const echo = createServer(echoAnswer);
const portOf = () => (echo.address() as AddressInfo).port;

beforeAll(async () => {
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  const free = createServer();
  await new Promise<void>((resolve) => free.listen(0, "127.0.0.1", resolve));
  const { port } = free.address() as AddressInfo;
  await new Promise((resolve) => free.close(resolve));
  nginx = nginxProgram === undefined ? undefined : await startNginx(nginxProgram, port);
  const executables = new Map(clients.map(({ identity, exe }) => [identity, exe]));
  if (ab !== undefined) executables.set("ab", ab);
  project = makeProject({
    "agentid.yaml": `trustDomain: shop.local
identities:
${[...executables].map(([name, exe]) => `  agents/${name}: { exe: ${exe} }`).join("\n")}
services:
  echo: { http: "http://127.0.0.1:${portOf()}" }
  web: { http: "http://127.0.0.1:${port}" }
  inside: { http: { unix: ${nginx?.socket ?? "run/none.sock"} } }
reload: auto
`,
    "policies/shop.yaml": RULES,
  });
  dev = await startDev(project);
});
afterAll(async () => {
  await dev?.stop();
  await nginx?.close();
  echo.closeAllConnections();
  echo.close();
});

const urlOf = (service: string) => dev.ready.services[service]?.url ?? "";

/** Of this connection, of this moment, or what the relay adds. */
const OWN = new Set(["agentid-decision", "connection", "date", "keep-alive", "transfer-encoding"]);

function comparable({ status, headers, body, failure }: Answered) {
  const kept = headers.map(([name, value]) => `${name.toLowerCase()}: ${value}`);
  const own = kept.filter((line) => !OWN.has(line.split(":")[0] ?? "")).sort();
  return { status, headers: own, sha256: sha256(body), length: body.length, failed: failure !== undefined };
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

type Case = readonly [what: string, status: number, asked: (page: Nginx) => Omit<Asked, "url"> & { path: string }];
const CASES: readonly Case[] = [
  ["GET", 200, () => ({ method: "GET", path: "/open/page" })],
  ["HEAD", 200, () => ({ method: "HEAD", path: "/open/page" })],
  ["an answer without content", 204, () => ({ method: "GET", path: "/open/none" })],
  [
    "what is not modified",
    304,
    ({ etag }) => ({ method: "GET", path: "/open/page", headers: { "If-None-Match": etag } }),
  ],
  ["a range", 206, () => ({ method: "GET", path: "/open/page", headers: { Range: "bytes=10-19" } })],
  ["the end of a file", 206, () => ({ method: "GET", path: "/open/page", headers: { Range: "bytes=-7" } })],
  ["a range beyond the end", 416, () => ({ method: "GET", path: "/open/page", headers: { Range: "bytes=9999999-" } })],
  ["an encoded body", 200, () => ({ method: "GET", path: "/open/zipped", headers: { "Accept-Encoding": "gzip" } })],
  ["a redirect to another host", 302, () => ({ method: "GET", path: "/open/moved" })],
  ["a redirect to the service's own address", 307, () => ({ method: "GET", path: "/open/self" })],
  ["a redirect within the service", 307, () => ({ method: "GET", path: "/open/beside" })],
  ["two cookies", 200, () => ({ method: "GET", path: "/open/login" })],
  ["what the service does not have", 404, () => ({ method: "GET", path: "/open/absent" })],
];

async function oneByOne(client: HttpClient, asked: readonly Asked[]): Promise<readonly Answered[]> {
  const answers: Answered[] = [];
  for (const one of asked) answers.push(...(await client.ask([one])));
  return answers;
}

describe.skipIf(lacksNginx).each([
  ["on a port", "web"],
  ["on a Unix socket", "inside"],
])("nginx %s", (_where, service) => {
  describe.each(clients.map((client) => [client.name, client] as const))("asked by %s", (name, client) => {
    it("sees what it sees without the relay", async () => {
      const server = nginx as Nginx;
      const seen = async (base: string) => {
        const asked = CASES.map(([, , make]) => make(server)).map(({ path, ...one }) => ({ ...one, url: base + path }));
        // One program for all is quicker to start than one for each.
        const answers = client.can.mix ? await client.ask(asked) : await oneByOne(client, asked);
        return CASES.map(([what], index) => {
          const { headers, ...rest } = comparable(answers[index] as Answered);
          // Its own address, as whoever asked has found it.
          return { what, ...rest, headers: headers.map((line) => line.replaceAll(base, "(base)")) };
        });
      };
      const relayed = await seen(urlOf(service));
      expect(relayed.map(({ what, status }) => [what, status])).toEqual(CASES.map(([what, status]) => [what, status]));
      expect(relayed).toEqual(await seen(`http://127.0.0.1:${server.port}`));
    });

    it("stores 20 MB as they were", async () => {
      const file = fileOf(20 * 1024 * 1024);
      const stored = `${service}-${name.replaceAll(/\W/g, "")}`;
      const [answer] = await client.ask([{ method: "PUT", url: `${urlOf(service)}/open/put/${stored}`, file }]);
      expect(answer).toMatchObject({ status: 201 });
      expect(sha256((nginx as Nginx).stored(stored))).toBe(sha256(readFileSync(file)));
    });

    it("leads to no new connection for each of five calls", async () => {
      const path = `/open/page?${service}=${encodeURIComponent(name)}`;
      const all = Array.from({ length: 5 }, () => ({ method: "GET", url: urlOf(service) + path }));
      const answers = await client.ask(all);
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
      const page = (nginx as Nginx).page;
      expect(Buffer.concat(answers.map(({ body }) => body)).length).toBe(5 * page.length);
      const here = () => (nginx as Nginx).arrived().filter(({ uri }) => decodeURIComponent(uri).includes(`=${name}`));
      const ours = () => here().filter(({ uri }) => uri.startsWith(`/open/page?${service}`));
      await expect.poll(() => ours().length).toBe(5);
      // A client may ask again before the relay has seen the end of the last answer: then there are two.
      expect(new Set(ours().map(({ connection }) => connection)).size).toBeLessThanOrEqual(2);
    });

    it.runIf(client.can.cookies)("keeps a session by cookies", async () => {
      const asked = ["/open/login", "/open/who"].map((path) => ({ method: "GET", url: urlOf(service) + path }));
      const answers = await client.ask(asked);
      expect(Buffer.concat(answers.map(({ body }) => body)).toString()).toBe("welcomes1,dark\n");
    });

    it("is out of reach where no rule allows it", async () => {
      const url = `${urlOf(service)}/closed/page?${service}=${encodeURIComponent(name)}`;
      const [denied] = await client.ask([{ method: "GET", url }]);
      expect(denied).toMatchObject({ status: 403, failure: expect.stringMatching(/\b403\b/) });
      expect(JSON.parse(String(denied?.body))).toMatchObject({ code: "denied" });
      const since = dev.events.findLast((event) => event.event === "call");
      expect(since).toMatchObject({ verdict: "DENY", caller: `agents/${client.identity}`, evidence: "kernel" });
      expect((nginx as Nginx).arrived().filter(({ uri }) => uri.startsWith("/closed"))).toEqual([]);
    });
  });
});

describe.each(clients.map((client) => [client.name, client] as const))("%s", (_name, client) => {
  const bodies: (readonly [how: string, chunked: boolean])[] = [["with its length", false]];
  if (client.can.chunked) bodies.push(["in chunks", true]);

  it.each(bodies)("posts a body %s", async (_how, chunked) => {
    const file = fileOf(300_001);
    const url = `${urlOf("echo")}/open/posted`;
    const headers = { "Content-Type": "application/octet-stream" };
    const [answer] = await client.ask([{ method: "POST", url, headers, file, chunked }]);
    expect(answer).toMatchObject({ status: 200 });
    expect(String(answer?.body)).toBe(sha256(readFileSync(file)));
    const sent = arrived.at(-1)?.headers;
    expect([sent?.["content-length"], sent?.["transfer-encoding"]]).toEqual(
      chunked ? [undefined, "chunked"] : ["300001", undefined],
    );
  });

  it("is told of a denial of what it posts, and the service hears nothing", async () => {
    const before = arrived.length;
    const url = `${urlOf("echo")}/closed/posted`;
    const [denied] = await client.ask([{ method: "POST", url, file: fileOf(1_000) }]);
    expect(denied).toMatchObject({ status: 403, failure: expect.stringMatching(/\b403\b/) });
    expect(arrived.length).toBe(before);
  });

  it.runIf(client.can.stream)("hears each event when it is sent, not when the stream is over", async () => {
    const already = streams.length;
    const program = client.follow(`${urlOf("echo")}/open/events`);
    const heard = async () => {
      for (;;) {
        const line = await program.line();
        if (line !== "") return line;
      }
    };
    expect(await heard()).toBe("data: 1");
    streams[already]?.write("data: 2\n\n");
    expect(await heard()).toBe("data: 2");
    streams[already]?.end("data: 3\n\n");
    expect(await heard()).toBe("data: 3");
    await program.end();
  });
});

describe.skipIf(missing("Go with its own SVID", { go: go?.exe, nginx: nginxProgram }))("Go with its own SVID", () => {
  const ask = async (client: HttpClient, service: string, path: string) => {
    const url = `https://${dev.ready.services[service]?.mtls}${path}`;
    const args = ["call", `spiffe://shop.local/services/${service}`];
    const input = JSON.stringify([{ method: "GET", url }]);
    const [answer] = answersOf(await run(client.exe, args, { cwd: project, env: dev.env, input }));
    return answer;
  };

  it("calls the inbound leg, as far as the rules go", async () => {
    const client = go as HttpClient;
    const allowed = await ask(client, "inside", "/open/page");
    expect(allowed).toMatchObject({ status: 200 });
    expect(sha256(allowed?.body ?? Buffer.alloc(0))).toBe(sha256((nginx as Nginx).page));
    expect(dev.events.findLast((event) => event.event === "call")).toMatchObject({
      ...{ verdict: "ALLOW", caller: "agents/go", evidence: "certificate" },
    });
    const denied = await ask(client, "inside", "/closed/page");
    expect(denied).toMatchObject({ status: 403, failure: "403 Forbidden" });
  });
});

describe.skipIf(missing("ab", { ab, nginx: nginxProgram }))("ab (HTTP/1.0)", () => {
  const bench = (url: string, ...more: string[]) =>
    run(ab ?? "", ["-q", "-n", "200", "-c", "8", "-s", "20", ...more, url], { cwd: project });

  it.each([
    ["without keep-alive", []],
    ["with keep-alive", ["-k"]],
  ] as const)("makes 200 calls %s, and none fails", async (_how, more) => {
    const { code, stdout, stderr } = await bench(`${urlOf("web")}/open/page`, ...more);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stdout).toMatch(/Complete requests: +200\n/);
    expect(stdout).toMatch(/Failed requests: +0\n/);
    expect(stdout).not.toContain("Non-2xx");
    expect(stdout).toMatch(new RegExp(`Document Length: +${(nginx as Nginx).page.length} bytes`));
    if (more.length > 0) expect(stdout).toMatch(/Keep-Alive requests: +200\n/);
  });

  it("is refused 200 times where no rule allows it", async () => {
    const { stdout } = await bench(`${urlOf("web")}/closed/page`, "-l");
    expect(stdout).toMatch(/Complete requests: +200\n/);
    expect(stdout).toMatch(/Non-2xx responses: +200\n/);
  });
});

describe.skipIf(missing("load", { go: go?.exe, ab, nginx: nginxProgram }))("changes under load", () => {
  it("ten reloads of the policy and five rotations fail no call and change no verdict", async () => {
    const open = `${urlOf("inside")}/open/page`;
    const closed = `${urlOf("web")}/closed/page`;
    const load = startProgram((go as HttpClient).exe, ["load", "", open, closed], { cwd: project });
    let over = false;
    const oneByOne = (async () => {
      const rounds: string[] = [];
      while (!over) {
        rounds.push((await run(ab ?? "", ["-q", "-n", "100", "-c", "2", "-s", "20", open], { cwd: project })).stdout);
      }
      return rounds;
    })();
    const first = [JSON.parse(await load.line()), JSON.parse(await load.line())];
    expect(first.map((one) => one.first).sort()).toEqual([`200 ${open}`, `403 ${closed}`]);
    for (let change = 0; change < 10; change += 1) {
      const since = dev.events.length;
      writeFileSync(join(project, "policies/shop.yaml"), RULES.replace("name: open", `name: open-${change}`));
      await dev.until((event) => event.event === "reload" && event.outcome === "applied", since);
      if (change % 2 === 0) expect(await agentid(["rotate"], { cwd: project })).toMatchObject({ code: 0 });
    }
    over = true;
    load.child.stdin?.end("\n");
    const { ends } = JSON.parse(await load.line()) as { ends: Record<string, number> };
    expect(Object.keys(ends).sort()).toEqual([`200 ${open}`, `403 ${closed}`]);
    for (const round of await oneByOne) {
      expect(round).toMatch(/Failed requests: +0\n/);
      expect(round).not.toContain("Non-2xx");
    }
    const rules = dev.events.flatMap((event) =>
      event.event === "call" && event.verdict === "ALLOW" ? [event.rule] : [],
    );
    expect(new Set(rules).size).toBeGreaterThan(5);
  });
});

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Built, build } from "../launch/built.js";

/*
 * After prctl(PR_SET_DUMPABLE, 0) an ordinary user's process may not read most of its own /proc entries. The daemon must be able to do everything all
 * the same, so a whole program runs as nobody: it forbids inspection, then asks all there is to ask about a child of the same user.
 */
const PROGRAM = `
  import { spawn, spawnSync } from "node:child_process";
  import { once } from "node:events";
  import { mkdtempSync, rmSync } from "node:fs";
  import { createServer } from "node:net";
  import { createCallerAttestor } from "./dist/attestation/attestor.js";
  import { executableDigests } from "./dist/attestation/hash-cache.js";
  import { createLaunchRegistry } from "./dist/attestation/launches.js";
  import { currentPlatform } from "./dist/platform/index.js";

  const platform = currentPlatform();
  // A process may always look at itself: another of the same user is asked.
  const readable = () => spawnSync("readlink", ["/proc/" + process.pid + "/exe"]).status === 0;
  const before = readable();
  platform.forbidInspection();
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform, digests });
  const attestor = createCallerAttestor({ platform, launches, digests });
  const folder = mkdtempSync("/tmp/agentid-test-");
  const path = folder + "/s";
  const unix = createServer().listen(path);
  const tcp = createServer().listen(0, "127.0.0.1");
  await Promise.all([once(unix, "listening"), once(tcp, "listening")]);
  const child = spawn(process.execPath, ["-e", "for (const to of process.argv.slice(1)) require('net').connect(/^\\\\d+$/.test(to) ? +to : to)", path, String(tcp.address().port)]);
  const [[overUnix], [overTcp]] = await Promise.all([once(unix, "connection"), once(tcp, "connection")]);
  const a = await attestor.ofUnixSocket(overUnix._handle.fd);
  const b = await attestor.ofTcpConnection({
    client: { address: overTcp.remoteAddress, port: overTcp.remotePort },
    server: { address: overTcp.localAddress, port: overTcp.localPort },
  });
  a.recheck();
  b.recheck?.();
  launches.begin({ launcher: a.facts, name: "agents/billing", expected: { exePath: "", exeSha256: "", argv: [] } });
  console.log(JSON.stringify({
    before, after: readable(), child: child.pid,
    unix: { pid: a.facts.pid, exe: a.facts.exePath, hashed: a.facts.exeSha256?.length, missing: a.facts.missing.exePath ?? a.facts.missing.exeSha256 ?? a.facts.missing.execGeneration ?? null, evidence: a.facts.evidence },
    tcp: b.facts?.pid ?? b.reason,
    agents: launches.pids(), parent: platform.ancestors(child.pid)[0]?.pid === process.pid, self: process.pid,
  }));
  child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
  process.exit(0);
`;

const canBecomeNobody = process.platform === "linux" && process.getuid?.() === 0;

describe.runIf(canBecomeNobody)("an ordinary user's process that has made itself non-dumpable", () => {
  let built: Built;
  beforeAll(() => {
    built = build();
  });
  afterAll(() => built.remove());

  test("attests, follows launches and reads parents as before", () => {
    writeFileSync(join(built.root, "program.mjs"), PROGRAM);
    const { stdout, stderr } = spawnSync(process.execPath, [join(built.root, "program.mjs")], {
      uid: 65534,
      gid: 65534,
      cwd: "/",
      env: { PATH: process.env.PATH, HOME: "/" },
      encoding: "utf8",
    });
    expect(stderr).toBe("");
    const said = JSON.parse(stdout);
    // The positive control: another process of the user could look at it before and cannot now.
    expect([said.before, said.after]).toEqual([true, false]);
    expect(said.unix).toEqual({
      pid: said.child,
      exe: process.execPath,
      hashed: 64,
      missing: null,
      evidence: "kernel",
    });
    expect(said).toMatchObject({ tcp: said.child, agents: [said.child], parent: true });
  });
});

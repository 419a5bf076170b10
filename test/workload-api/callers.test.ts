import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { status } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { AttestationError } from "../../src/attestation/attestor.js";
import type { Caller } from "../../src/attestation/caller.js";
import { verifies } from "../requirements/verifies.js";
import { createManualClock } from "./manual-clock.js";
import { receive } from "./received.js";
import { identity, type RunningApi, type RunOptions, runApi, secure } from "./running-api.js";

const programs = join(import.meta.dirname, "programs");
const rawCall = [process.execPath, join(programs, "raw-call.mjs")];
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;
const hasPerl = succeeds(() => execFileSync("perl", ["-MIO::Socket::UNIX", "-e", "1"], { stdio: "ignore" }));

let running: RunningApi | undefined;
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await running?.close();
  running = undefined;
});

function succeeds(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

async function start(options: RunOptions): Promise<RunningApi> {
  running = await runApi(options);
  // As the daemon does for a socket that is meant for every user.
  chmodSync(dirname(running.path), 0o755);
  return running;
}

/** Starts a program; `line` waits for its next line of output. */
function run(command: readonly string[], uid?: number): { child: ChildProcess; line: () => Promise<string> } {
  const [file = "", ...args] = command;
  const stdio: ["pipe", "pipe", "inherit"] = ["pipe", "pipe", "inherit"];
  const child =
    uid === undefined ? spawn(file, args, { stdio }) : spawn(file, args, { stdio, uid, gid: uid, cwd: "/" });
  children.push(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { child, line: async () => String((await lines.next()).value) };
}

/** Resolves when the next connection has been attested. */
function attestations(): { change: NonNullable<RunOptions["change"]>; next: () => Promise<Caller> } {
  const waiting: ((caller: Caller) => void)[] = [];
  return {
    change: (dependencies) => ({
      ...dependencies,
      attestor: {
        async ofUnixSocket(fd) {
          const caller = await dependencies.attestor.ofUnixSocket(fd);
          for (const resolve of waiting.splice(0)) resolve(caller);
          return caller;
        },
      },
    }),
    next: () => new Promise((resolve) => waiting.push(resolve)),
  };
}

describe("the caller", () => {
  it.runIf(isRoot)(`${verifies("EP-12")} is who the kernel says: another user has other identities`, async () => {
    const { path, record } = await start({
      identities: [identity("agents/nobody", { uid: NOBODY }), identity("agents/root", { uid: 0 })],
    });
    expect(JSON.parse(await run([...rawCall, path]).line())).toHaveProperty("message");
    expect(JSON.parse(await run([...rawCall, path], NOBODY).line())).toHaveProperty("message");
    const delivered = record.entries.filter(({ kind }) => kind === "svid.delivered");
    expect(delivered.map(({ fields }) => [fields.identity, fields.uid])).toEqual([
      ["agents/root", 0],
      ["agents/nobody", NOBODY],
    ]);
  });

  it("is the program that runs: another binary of the same user gets nothing", async () => {
    const { path } = await start({ identities: [identity("agents/node", { exePath: process.execPath })] });
    expect(JSON.parse(await run([...rawCall, path]).line())).toHaveProperty("message");
    running?.configure([identity("agents/node", { exePath: "/bin/true" })]);
    const refused = JSON.parse(await run([...rawCall, path]).line());
    expect(refused.status).toBe(status.PERMISSION_DENIED);
  });

  it.runIf(hasPerl)("gets nothing after it has become another program", async () => {
    const seen = attestations();
    const { path, record } = await start({ identities: [identity("agents/any")], change: seen.change });
    // The control: that very program, on a connection of its own.
    expect(JSON.parse(await run([...rawCall, path]).line())).toHaveProperty("message");

    const attested = seen.next();
    const { child, line } = run(["perl", join(programs, "hand-over.pl"), "exec", path, ...rawCall]);
    expect(await line()).toBe("connected");
    expect((await attested).facts.pid).toBe(child.pid);
    child.stdin?.write("go\n");
    const refused = JSON.parse(await line());
    expect(refused.status).toBe(status.UNAUTHENTICATED);
    expect(record.entries.at(-1)).toMatchObject({
      kind: "svid.refused",
      fields: { pid: child.pid, reason: "process-changed" },
    });
  });

  it.runIf(hasPerl)("gets nothing once the process that connected has exited", async () => {
    const seen = attestations();
    const { path, record } = await start({ identities: [identity("agents/any")], change: seen.change });
    const attested = seen.next();
    const { child, line } = run(["perl", join(programs, "hand-over.pl"), "fork", path, ...rawCall]);
    expect(await line()).toBe("connected");
    expect((await attested).facts.pid).toBe(child.pid);
    child.stdin?.write("go\n");
    const refused = JSON.parse(await line());
    expect(refused.status).toBe(status.UNAUTHENTICATED);
    expect(record.entries.at(-1)).toMatchObject({
      kind: "svid.refused",
      fields: { pid: child.pid, reason: "process-gone" },
    });
  });

  it(`${verifies("ST-9")} is checked again before each message of a stream, and its connection is given up`, async () => {
    let changed = false;
    const { client, keeper, api } = await start({
      identities: [identity("agents/billing")],
      change: (dependencies) => ({
        ...dependencies,
        attestor: {
          async ofUnixSocket(fd) {
            const caller = await dependencies.attestor.ofUnixSocket(fd);
            return recheckedBy(caller, () => {
              if (changed) throw new AttestationError("process-changed", "it executes another program now");
            });
          },
        },
      }),
    });
    const stream = receive(client().fetchX509Svid({}, secure()));
    await stream.next();
    keeper.rotate();
    await stream.next();
    changed = true;
    keeper.rotate();
    expect((await stream.ended).code).toBe(status.UNAUTHENTICATED);
    await expect.poll(() => api.open, { timeout: 5_000 }).toEqual({ connections: 0, streams: 0 });
  });
});

describe("many calls at once", () => {
  const AT_ONCE = 40;

  it("are each checked after they have come, in fewer looks than calls; once the process has changed each is refused and recorded", async () => {
    let rechecks = 0;
    let changed = false;
    // Gives the connection up when the test says so: how long the calls take to come is the machine's affair.
    const clock = createManualClock();
    const { client, record, api } = await start({
      identities: [identity("agents/billing")],
      clock,
      change: (dependencies) => ({
        ...dependencies,
        attestor: {
          async ofUnixSocket(fd) {
            const caller = await dependencies.attestor.ofUnixSocket(fd);
            return recheckedBy(caller, () => {
              rechecks += 1;
              if (changed) throw new AttestationError("process-changed", "it executes another program now");
            });
          },
        },
      }),
    });
    const connection = client();
    const fetch = () =>
      new Promise<status>((resolve) => {
        connection.fetchJwtsvid({ audience: ["orders"], spiffeId: "" }, secure(), (error) =>
          resolve(error?.code ?? status.OK),
        );
      });
    const together = () => Promise.all(Array.from({ length: AT_ONCE }, fetch));
    const recorded = (wanted: string) => record.entries.filter(({ kind }) => kind === wanted).length;

    expect(await fetch()).toBe(status.OK);
    expect(rechecks).toBe(1);
    expect(new Set(await together())).toEqual(new Set([status.OK]));
    expect(rechecks).toBeGreaterThan(1);
    expect(rechecks).toBeLessThan(AT_ONCE);
    expect([recorded("svid.issued"), recorded("svid.delivered")]).toEqual([1, AT_ONCE + 1]);

    changed = true;
    expect(new Set(await together())).toEqual(new Set([status.UNAUTHENTICATED]));
    expect([recorded("svid.refused"), recorded("svid.delivered")]).toEqual([AT_ONCE, AT_ONCE + 1]);
    clock.advance(100);
    await expect.poll(() => api.open, { timeout: 5_000 }).toEqual({ connections: 0, streams: 0 });
  });
});

function recheckedBy(caller: Caller, recheck: () => void): Caller {
  return {
    facts: caller.facts,
    launch: caller.launch,
    recheck() {
      caller.recheck();
      recheck();
    },
    close: () => caller.close(),
  };
}

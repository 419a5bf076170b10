import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createAdopters } from "../../src/attestation/adopters.js";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { openAuditLog } from "../../src/audit/chained-log.js";
import { createEventBus } from "../../src/daemon/event-bus.js";
import { writeKnownAgents } from "../../src/daemon/known-agents.js";
import { createLaunching } from "../../src/daemon/launching.js";
import { loadProject } from "../../src/daemon/project.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { systemClock } from "../../src/platform/clock.js";
import { linux } from "../../src/platform/linux.js";
import {
  atEnd,
  CONNECTOR,
  cleanUp,
  descriptorOf,
  listen,
  start,
  temporaryFolder,
  until,
} from "../attestation/processes.js";

afterEach(cleanUp);

const COMMAND = ["sleep", "60"];

/** Grants launches of `sleep 60` as `agents/sleeper`; the agents are remembered in the folder `state`. */
async function granting() {
  const folder = temporaryFolder();
  const state = join(folder, "state");
  mkdirSync(state);
  mkdirSync(join(folder, "policies"));
  writeFileSync(
    join(folder, "agentid.yaml"),
    `trustDomain: shop.local\nidentities:\n  agents/sleeper: { launch: ${JSON.stringify(COMMAND)} }\n`,
  );
  const project = await loadProject(folder, process.env);
  const audit = await openAuditLog(join(folder, "audit"), { clock: systemClock });
  atEnd(() => audit.close());
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform: linux, digests });
  atEnd(() => launches.close());
  const adopters = createAdopters(linux, []);
  const attestor = createCallerAttestor({ platform: linux, launches, digests });
  const launch = createLaunching({
    ...{ attestor, launches, adopters, audit, bus: createEventBus(systemClock), project: () => project },
    registry: createIdentityRegistry(project.config, project.lock),
    rememberAgents: () =>
      writeKnownAgents(state, { agents: launches.agents(), adopters: adopters.all(), firstLaunchStartTime: undefined }),
    environmentOf: () => ({}),
    environment: process.env,
    sandboxes: {
      prepare: () => Promise.reject(new Error("no launch here is sandboxed")),
      close: async () => {},
    },
  });
  const executable = project.lock.identities["agents/sleeper"]?.exe?.path ?? "";
  const listening = await listen({ path: join(folder, "s") });

  /** Asks for the launch, and becomes the command whatever the answer is. */
  async function launched() {
    const told = start(process.execPath, ["-e", CONNECTOR, listening.address], { cwd: folder });
    const socket = await listening.accepted();
    await told.line();
    const answer = launch(
      { name: "sleeper", argv: COMMAND, workingDirectory: folder },
      { fd: descriptorOf(socket), right: "administrator" },
    );
    const outcome = await answer.then(
      ({ identity }) => identity,
      (thrown: unknown) => thrown,
    );
    const caller = await attestor.ofPid(told.pid);
    const { startTime, execGeneration } = caller.facts;
    caller.close();
    told.tell(`exec ${executable} ${COMMAND.slice(1).join(" ")}`);
    const generation = () => {
      const handle = linux.openProcess({ pid: told.pid });
      try {
        return handle.status().execGeneration;
      } finally {
        handle.close();
      }
    };
    await until(() => ![execGeneration, undefined].includes(generation()), "the exec");
    await launches.checkNow(told.pid);
    return {
      outcome,
      identity: launches.launchOf(told.pid, startTime, generation())?.name,
      isAgent: launches.isAgent(told.pid, startTime),
    };
  }
  return { launched, state, audit };
}

describe.runIf(process.platform === "linux")(
  "a launch that cannot be recorded gives no identity, and leaves an agent",
  () => {
    test("when who is an agent cannot be written down", async () => {
      const { launched, state } = await granting();
      expect(await launched()).toEqual({ outcome: "agents/sleeper", identity: "agents/sleeper", isAgent: true });
      rmSync(state, { recursive: true });
      expect(await launched()).toEqual({
        outcome: expect.objectContaining({ code: "ENOENT" }),
        identity: undefined,
        isAgent: true,
      });
    });

    test("when the record takes no entry", async () => {
      const { launched, audit } = await granting();
      expect(await launched()).toEqual({ outcome: "agents/sleeper", identity: "agents/sleeper", isAgent: true });
      await audit.close();
      expect(await launched()).toEqual({
        outcome: expect.objectContaining({ code: "audit-closed" }),
        identity: undefined,
        isAgent: true,
      });
    });
  },
);

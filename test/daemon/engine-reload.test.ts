import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { createMemoryAuditLog } from "../../src/audit/memory-log.js";
import { createEventBus } from "../../src/daemon/event-bus.js";
import { loadProject, type Project } from "../../src/daemon/project.js";
import { followProject } from "../../src/daemon/project-reload.js";
import { systemClock } from "../../src/platform/clock.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import { opened } from "../../src/policy/engines/load-engines.js";
import { http } from "../policy/engines/engine-project.js";

const PERMIT = 'permit(principal, action, resource) when { resource.path like "/v1/*" };\n';
const FORBID = 'forbid(principal, action == Action::"http:DELETE", resource);\n';

/** A project whose Cedar policies lie outside of its policies folder, followed as the daemon follows it. */
async function followed() {
  const directory = mkdtempSync(join(tmpdir(), "agentid-reload-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const write = (path: string, text: string) => writeFileSync(join(directory, path), text);
  mkdirSync(join(directory, "policies"));
  mkdirSync(join(directory, "cedar/deeper"), { recursive: true });
  write("policies/all.yaml", 'rules:\n  - { name: all, allow: { from: "**", to: "**" } }\n');
  write("cedar/deeper/shop.cedar", PERMIT);
  write(
    "agentid.yaml",
    `trustDomain: shop.local
reload: confirm
identities: { agents/billing: { uid: 1 } }
services: { invoices: { http: { unix: run/invoices.sock } } }
policy: { engines: [{ name: corporate, cedar: cedar, scope: [invoices] }] }
`,
  );
  const load = () => loadProject(directory, {});
  const pointOf = ({ policies, engines }: Project) =>
    createDecisionPoint(policies, { clock: systemClock, random: randomBytes, ...opened(engines, systemClock) });
  const first = await load();
  let point = pointOf(first);
  const outcomes: string[] = [];
  const warnings: string[] = [];
  const waiting: (() => void)[] = [];
  const bus = createEventBus(systemClock);
  bus.subscribe(undefined, (event) => {
    if (event.event === "problem" && event.code === "policy-warning") {
      warnings.push(`${event.resolved === true ? "over: " : ""}${event.message}`);
    }
    if (event.event !== "reload") return;
    outcomes.push(event.outcome);
    for (const wake of waiting.splice(0)) wake();
  });
  const reload = followProject({
    first,
    load,
    apply: async (next) => {
      point = pointOf(next);
    },
    audit: createMemoryAuditLog({ clock: systemClock }),
    bus,
    clock: systemClock,
    watch: true,
  });
  onTestFinished(() => reload.close());
  await reload.ready;
  const outcomeAfter = async (change: () => void): Promise<string | undefined> => {
    const seen = outcomes.length;
    change();
    while (outcomes.length === seen) await new Promise<void>((resolve) => waiting.push(resolve));
    return outcomes.at(-1);
  };
  const allowed = async (method: string, path = "/v1/invoices") => (await point.decide(http(method, path))).allowed;
  return { write, reload, outcomeAfter, allowed, warnings };
}

test("policies of an engine follow a save: narrower at once, wider when accepted, broken never; and none is ever in between", async () => {
  const { write, reload, outcomeAfter, allowed } = await followed();
  expect([await allowed("GET"), await allowed("DELETE"), await allowed("GET", "/v2")]).toEqual([true, true, false]);

  expect(await outcomeAfter(() => write("cedar/deeper/more.cedar", FORBID))).toBe("applied");
  expect([await allowed("GET"), await allowed("DELETE"), await allowed("GET", "/v2")]).toEqual([true, false, false]);

  expect(await outcomeAfter(() => write("cedar/deeper/shop.cedar", "permit(principal, action"))).toBe("failed");
  expect([await allowed("GET"), await allowed("DELETE"), await allowed("GET", "/v2")]).toEqual([true, false, false]);

  expect(await outcomeAfter(() => write("cedar/deeper/shop.cedar", "permit(principal, action, resource);"))).toBe(
    "waiting",
  );
  expect([await allowed("GET"), await allowed("DELETE"), await allowed("GET", "/v2")]).toEqual([true, false, false]);

  await reload.accept(undefined);
  expect([await allowed("GET"), await allowed("DELETE"), await allowed("GET", "/v2")]).toEqual([true, false, true]);
});

test("a warning is told once, and told to be over with what it was about", async () => {
  const { write, outcomeAfter, warnings } = await followed();
  const empty = "policies/more.yaml:1:1: the file holds no rules";
  await outcomeAfter(() => write("policies/more.yaml", ""));
  expect(warnings).toEqual([empty]);
  await outcomeAfter(() => write("cedar/deeper/more.cedar", FORBID));
  expect(warnings).toEqual([empty]);
  await outcomeAfter(() => write("policies/more.yaml", "rules: []\n"));
  expect(warnings).toEqual([empty, `over: ${empty}`]);
});

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCollector } from "../telemetry/collector.js";
import { bin, python, type RunningDev, startDev, startProgram } from "./agentid.js";
import { billingCommand, makeShop, shopYaml } from "./shop.js";

describe.skipIf(python === undefined)("spans of the calls of real agents", () => {
  let collector: Awaited<ReturnType<typeof runCollector>>;
  const project = makeShop();
  let dev: RunningDev;

  beforeAll(async () => {
    collector = await runCollector();
    dev = await startDev(project, [], { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector.example" });
  });
  afterAll(async () => {
    await dev?.stop();
    collector.close();
  });

  it("come when a collector is saved into agentid.yaml, and all of them before the daemon ends", async () => {
    // An address that would send them out unprotected is said, and not used.
    expect(await dev.until((event) => event.event === "problem" && event.code === "telemetry")).toMatchObject({
      message: expect.stringContaining("would leave this machine"),
    });
    const agent = startProgram(process.execPath, [bin, "run", "billing", "--", ...billingCommand], { cwd: project });
    try {
      expect(await agent.line()).toBe(`up ${agent.pid}`);
      agent.write("GET /v1/before\n");
      expect(await agent.line()).toMatch(/^200 /);
      writeFileSync(join(project, "agentid.yaml"), `${shopYaml()}telemetry: { otlp: "${collector.url}" }\n`);
      await dev.until((event) => event.event === "reload" && JSON.stringify(event).includes("telemetry.otlp"));
      agent.write("GET /v1/after\n");
      expect(await agent.line()).toMatch(/^200 /);
    } finally {
      await agent.end();
    }
    await dev.stop();
    const seen = collector.spans.map(({ kind, attributes }) => [kind, attributes["url.path"]]);
    expect(seen.sort()).toEqual([
      [2, "/v1/after"],
      [3, "/v1/after"],
    ]);
    expect(collector.spans[0]?.attributes["agentid.caller"]).toBe("spiffe://shop.local/agents/billing");
  });
});

import { afterEach, beforeEach, expect, test } from "vitest";
import { createOtlpTracer, type OtlpTracer } from "../../src/telemetry/otlp-tracer.js";
import { runCollector } from "./collector.js";

let collector: Awaited<ReturnType<typeof runCollector>>;
let tracer: OtlpTracer;
beforeEach(async () => {
  collector = await runCollector();
  tracer = createOtlpTracer({ url: collector.url, resource: { "service.name": "agentid" } });
});
afterEach(() => collector.close());

const FACTS = { name: "GET invoices", errorType: undefined, attributes: {} };

test("a span that is open when its collector is left is sent there when it ends", async () => {
  const [long, longer] = [tracer.begin("inbound", 0, undefined), tracer.begin("inbound", 0, undefined)];
  let isClosed = false;
  const closed = tracer.close().then(() => {
    isClosed = true;
  });
  long.end(FACTS);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(isClosed).toBe(false);
  longer.end({ ...FACTS, name: "GET ledger" });
  await closed;
  expect(collector.spans.map(({ name }) => name).sort()).toEqual(["GET invoices", "GET ledger"]);
});

test("an end does not wait longer than its grace, also where somebody waits for the spans already", async () => {
  const open = tracer.begin("outbound", 0, undefined);
  tracer.begin("outbound", 0, undefined).end(FACTS);
  const left = tracer.close();
  await tracer.close(50);
  expect(collector.spans.map(({ name }) => name)).toEqual(["GET invoices"]);
  open.end(FACTS);
  await left;
});

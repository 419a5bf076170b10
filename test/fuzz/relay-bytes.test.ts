import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Finding, type FuzzedRelay, fuzzedRelay, type Leg } from "./relay-bytes.js";

/**
 * `npm test` sends the bytes of the seeds that once found something, and of the same few hundred others each time. `npm run fuzz:relay` sends new ones for
 * ten minutes; what it finds, it prints with the seed, which then belongs into seeds.json.
 */
const SECONDS = process.env.AGENTID_FUZZ_SECONDS;
const FIRST_SEED = Number(process.env.AGENTID_FUZZ_SEED ?? (SECONDS === undefined ? 20_260_101 : Date.now() % 2 ** 31));
const FEW = 200;
const kept = JSON.parse(readFileSync(join(import.meta.dirname, "seeds.json"), "utf8")) as Record<string, number[]>;

describe.each(["outbound", "inbound"] as const)("bytes on the %s leg", (leg: Leg) => {
  let relay: FuzzedRelay;

  beforeAll(async () => {
    relay = await fuzzedRelay();
  });
  afterAll(async () => {
    await relay.close();
  });

  it("that once were read in two ways are not", async () => {
    for (const seed of kept.relayBytes ?? []) expect(await relay.run(leg, seed)).toBeUndefined();
  });

  it("let nothing through that was not decided, whatever they are", {
    retry: 0,
    timeout: 120_000 + Number(SECONDS ?? 0) * 1_000,
  }, async () => {
    const until = SECONDS === undefined ? undefined : Date.now() + (Number(SECONDS) * 1_000) / 2;
    const findings: Finding[] = [];
    let tried = 0;
    for (; until === undefined ? tried < FEW : Date.now() < until; tried += 1) {
      const finding = await relay.run(leg, FIRST_SEED + tried);
      if (finding !== undefined) findings.push(finding);
      if (findings.length >= 10) break;
    }
    if (until !== undefined) {
      process.stderr.write(
        `${JSON.stringify({ leg, firstSeed: FIRST_SEED, tried, ...relay.seen, findings: findings.length })}\n`,
      );
    }
    expect(findings).toEqual([]);
    // Much got through, much did not: neither all nor nothing was sound.
    expect(Math.min(relay.seen.allowed, relay.seen.denied, relay.seen.arrived)).toBeGreaterThan(tried / 20);
  });
});

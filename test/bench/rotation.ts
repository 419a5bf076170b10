/**
 * 10,000 identities with an SVID each, 1,000 open streams, one new authority: every SVID is replaced and every stream has its new one.
 * Bars: none missed, at most 300 MB, event loop never blocked for more than 50 ms.
 */
import type { X509SVIDResponse } from "../../src/workload-api/generated/workload.js";
import { connectTo, secure, startServer } from "./workload-api/parent.js";

const IDENTITIES = 10_000;
const STREAMS = 1_000;
const STREAMS_A_CONNECTION = 100;

const server = await startServer(IDENTITIES);
const clients = Array.from({ length: STREAMS / STREAMS_A_CONNECTION }, () => connectTo(server.path));
await server.tell("issueAll");

const newest: Buffer[] = Array.from({ length: STREAMS }, () => Buffer.alloc(0));
let changed = () => {};
const calls = newest.map((_, index) => {
  const call = clients[index % clients.length]?.fetchX509Svid({}, secure());
  call?.on("data", ({ svids }: X509SVIDResponse) => {
    newest[index] = Buffer.from(svids[0]?.x509Svid ?? []);
    changed();
  });
  call?.on("error", () => {
    newest[index] = Buffer.alloc(0);
  });
  return call;
});
const until = (wanted: () => boolean) =>
  new Promise<void>((resolve) => {
    changed = () => wanted() && resolve();
    changed();
  });
await until(() => newest.every((der) => der.length > 0));
const before = newest.slice();

const started = performance.now();
await server.tell("rotate");
await until(() => newest.every((der, index) => der.length > 0 && !der.equals(before[index] ?? der)));
const pushed = performance.now() - started;
// The last of the identities that nobody listens to.
let report: {
  rssMb: number;
  peakMb: number;
  blockedMs: number;
  longestWorkMs: number;
  replaced: number;
  streams: number;
};
do report = await server.tell("report");
while (report.replaced < IDENTITIES);
const all = performance.now() - started;
const updated = newest.filter((der, index) => !der.equals(before[index] ?? der)).length;
process.stdout.write(
  `rotation                ${updated} of ${STREAMS} streams updated in ${pushed.toFixed(0)} ms, ${report.replaced} SVIDs replaced in ${all.toFixed(0)} ms\n` +
    `  memory                ${report.rssMb} MB, peak ${report.peakMb} MB (bar 300)\n` +
    `  longest block         ${report.blockedMs.toFixed(1)} ms (bar 50), of the processor's time ${report.longestWorkMs.toFixed(1)} ms\n`,
);
for (const call of calls) call?.cancel();
for (const client of clients) client.close();
await server.stop();

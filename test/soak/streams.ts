/** The soak: `npm run soak` opens and cancels 100,000 streams, `npm run soak -- 5000` that many, and prints what came of it. */

await import(new URL("../source-hooks.ts", import.meta.url).href);
const { soakDaemon } = (await import(
  new URL("./soaked-daemon.ts", import.meta.url).href
)) as typeof import("./soaked-daemon.js");
const { wrongAnswers } = (await import(new URL("./soak.ts", import.meta.url).href)) as typeof import("./soak.js");

const streams = Number(process.argv[2] ?? 100_000);
if (!Number.isSafeInteger(streams) || streams < 1) {
  process.stderr.write("soak: how many streams? `npm run soak -- 5000`\n");
  process.exit(2);
}

const report = await soakDaemon(streams);
const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MB`;
const lines = report.answers.map(({ call, counts }) => {
  const answered = [...counts].map(([answer, count]) => `${count} × ${answer}`).join(", ");
  return `${call.name.padEnd(44)} ${String(call.answer).padEnd(8)} ${answered}`;
});
const held = (["timers", "descriptors", "rss", "heapUsed"] as const).map((what) => {
  const shown = (amount: number) => (what === "rss" || what === "heapUsed" ? megabytes(amount) : String(amount));
  return `${what.padEnd(14)} before ${shown(report.before[what]).padEnd(10)} after ${shown(report.after[what])}`;
});
const title = `${streams} streams in ${report.seconds.toFixed(1)} s`;
process.stdout.write(
  [title, "", `${"call".padEnd(44)} ${"expected".padEnd(8)} answered`, ...lines, "", ...held, ""].join("\n"),
);

const wrong = wrongAnswers(report);
for (const line of wrong) process.stderr.write(`soak: ${line}\n`);
for (const line of report.remains) process.stderr.write(`soak: ${line}\n`);
process.exitCode = wrong.length + report.remains.length > 0 ? 1 : 0;

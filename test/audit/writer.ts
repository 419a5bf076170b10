/** Appends to the log in the folder given, one by one or ten in each turn, until it is killed, and says the number of each entry once that is done. */
import { writeSync } from "node:fs";
import type { AuditReceipt } from "../../src/audit/audit-log.js";
import { openAuditLog } from "../../src/audit/chained-log.js";
import { systemClock } from "../../src/platform/clock.js";

const log = await openAuditLog(process.argv[2] ?? "", { clock: systemClock });
const fields = { text: "x".repeat(200) };
const say = ({ sequence }: AuditReceipt) => writeSync(1, `${sequence}\n`);
for (;;) {
  if (process.argv[3] === "append") say(log.append("call", fields));
  else await Promise.all(Array.from({ length: 10 }, () => log.appendInTurn("call", fields).then(say)));
}

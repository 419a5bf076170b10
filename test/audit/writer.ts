/** Appends to the log in the folder given until it is killed, and says the number of each entry once append has returned. */
import { writeSync } from "node:fs";
import { openAuditLog } from "../../src/audit/chained-log.js";
import { systemClock } from "../../src/platform/clock.js";

const log = await openAuditLog(process.argv[2] ?? "", { clock: systemClock });
for (;;) writeSync(1, `${log.append("call", { text: "x".repeat(200) }).sequence}\n`);

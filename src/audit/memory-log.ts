import type { Clock } from "../platform/clock.js";
import { AuditError } from "./audit-error.js";
import type { AuditFields, AuditKind, AuditLog, AuditReceipt } from "./audit-log.js";
import { canonicalFields, chainedLine, GENESIS, parseEntry } from "./chain.js";
import type { PreparedFields } from "./prepared-fields.js";

/**
 * A log with the same chain that keeps its newest `keep` entries in memory and nothing on disk, for `--ephemeral` and `keys: memory`.
 * `size` counts all entries; `read` begins with the oldest that is kept.
 */
export function createMemoryAuditLog(options: { clock: Clock; keep?: number }): AuditLog & { readonly head: string } {
  const keep = options.keep ?? 100_000;
  let lines: string[] = [];
  let dropped = 0;
  let head = GENESIS;
  let closed = false;

  function append(kind: AuditKind, fields: AuditFields | PreparedFields): AuditReceipt {
    if (closed) throw new AuditError("audit-closed", "the audit log is closed");
    const sequence = dropped + lines.length;
    const time = new Date(options.clock.now()).toISOString();
    const { line, hash } = chainedLine(sequence, time, kind, canonicalFields(kind, fields), head);
    lines.push(line);
    head = hash;
    // Cutting in halves keeps the cost of an append constant on average.
    if (lines.length >= keep * 2) {
      dropped += lines.length - keep;
      lines = lines.slice(-keep);
    }
    return { sequence, hash };
  }

  return {
    append,
    appendInTurn: async (kind, fields) => append(kind, fields),
    async read(fromSequence, limit) {
      const from = Math.max(0, fromSequence - dropped);
      return lines.slice(from, from + Math.max(0, limit)).map(parseEntry);
    },
    get size() {
      return dropped + lines.length;
    },
    get head() {
      return head;
    },
    async close() {
      closed = true;
    },
  };
}

import { randomUUID } from "node:crypto";
import type { Evidence } from "../attestation/process-facts.js";
import type { TraceParent } from "../telemetry/trace-context.js";

/** What the outbound leg knows of the calling process. */
export interface CallingProcess {
  /** In kernel words. */
  readonly detail: string;
  readonly evidence: Evidence;
  /** Of a connection without headers: where it stands in a trace. */
  readonly trace?: TraceParent | undefined;
}

/**
 * How our inbound leg learns which process our outbound leg is calling for: a ticket that works once, inside this daemon. It adds
 * to what the certificate proves how strong the evidence was, and words for people; nobody outside can know one.
 */
export interface Tickets {
  issue(caller: string, process: CallingProcess): string;
  /** What was given with the ticket, if it was issued for `caller`. Each ticket is good once. */
  redeem(ticket: string | undefined, caller: string): CallingProcess | undefined;
  /** Forgets a ticket that was never redeemed. */
  discard(ticket: string): void;
}

export function createTickets(): Tickets {
  const open = new Map<string, { caller: string; process: CallingProcess }>();
  return {
    issue(caller, process) {
      const ticket = randomUUID();
      open.set(ticket, { caller, process });
      return ticket;
    },
    redeem(ticket, caller) {
      if (ticket === undefined) return undefined;
      const found = open.get(ticket);
      open.delete(ticket);
      return found?.caller === caller ? found.process : undefined;
    },
    discard: (ticket) => void open.delete(ticket),
  };
}

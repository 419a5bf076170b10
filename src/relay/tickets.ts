import { randomUUID } from "node:crypto";

/**
 * How our inbound leg learns which process our outbound leg is calling for: a ticket that works once, inside this daemon. It only adds
 * words for people to what the certificate proves; nobody outside can know one.
 */
export interface Tickets {
  issue(caller: string, detail: string): string;
  /** The detail given with the ticket, if it was issued for `caller`; empty otherwise. Each ticket is good once. */
  redeem(ticket: string | undefined, caller: string): string;
  /** Forgets a ticket that was never redeemed. */
  discard(ticket: string): void;
}

export function createTickets(): Tickets {
  const open = new Map<string, { caller: string; detail: string }>();
  return {
    issue(caller, detail) {
      const ticket = randomUUID();
      open.set(ticket, { caller, detail });
      return ticket;
    },
    redeem(ticket, caller) {
      if (ticket === undefined) return "";
      const found = open.get(ticket);
      open.delete(ticket);
      return found?.caller === caller ? found.detail : "";
    },
    discard: (ticket) => void open.delete(ticket),
  };
}

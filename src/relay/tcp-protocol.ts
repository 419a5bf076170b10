import type { Duplex } from "node:stream";
import { Refusal } from "../http/refusal.js";
import type { Clock } from "../platform/clock.js";

/**
 * What two legs say before the bytes of a tcp service. By ALPN (RFC 7301) a leg for HTTP and one for bytes can never be taken for each other: neither
 * knows the other's names, and an inbound leg for bytes refuses whoever names none.
 */
export const ALPN = {
  /** The bytes of the service from the first one on; the caller is who its certificate says. */
  plain: "agentid-tcp",
  /** Before them one preface with a ticket: who comes from our own outbound leg. */
  ticketed: "agentid-tcp-ticket",
} as const;

const VERSION = 1;
const TICKET = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TICKET_BYTES = 36;
const PREFACE_BYTES = 1 + TICKET_BYTES;
const PREFACE_TIMEOUT_MS = 10_000;

/** One byte with the version, then the ticket; always of the same length, so that nothing of it can be read as the service's bytes. */
export function preface(ticket: string): Buffer {
  return Buffer.concat([Buffer.of(VERSION), Buffer.from(ticket, "latin1")]);
}

/** The ticket in the preface; what follows stays unread. Rejects with Refusal `preface-malformed`, also where it does not come in time. */
export function readPreface(stream: Duplex, clock: Clock): Promise<string> {
  return new Promise((resolve, reject) => {
    const settle = (outcome: () => void) => {
      cancel();
      stream.off("readable", read);
      stream.off("end", missing);
      stream.off("close", missing);
      outcome();
    };
    const refuse = (why: string) => settle(() => reject(new Refusal("preface-malformed", 400, why)));
    const missing = () => refuse("the connection ended before its preface");
    const read = () => {
      const bytes: Buffer | null = stream.read(PREFACE_BYTES);
      if (bytes === null) return;
      const ticket = bytes.toString("latin1", 1);
      if (bytes[0] !== VERSION) refuse("the preface is of no version that is known here");
      else if (bytes.length !== PREFACE_BYTES || !TICKET.test(ticket)) refuse("the preface holds no ticket");
      else settle(() => resolve(ticket));
    };
    const cancel = clock.after(PREFACE_TIMEOUT_MS, () => refuse("the preface did not come in time"));
    stream.on("readable", read);
    stream.once("end", missing);
    stream.once("close", missing);
    read();
  });
}

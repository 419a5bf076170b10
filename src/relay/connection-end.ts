import type { Duplex } from "node:stream";
import type { Clock } from "../platform/clock.js";

const GRACE_MS = 30_000;
/** The longest delay a timer takes; a certificate that lives longer is looked at again then. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** Closes a connection that nothing can drain, 30 s after the certificate of its peer has expired (D24). */
export function closeAfterExpiry(clock: Clock, notAfter: Date, socket: Duplex): void {
  let cancel = (): void => undefined;
  const arm = () => {
    const left = notAfter.getTime() + GRACE_MS - clock.now();
    if (left > 0) cancel = clock.after(Math.min(left, MAX_DELAY_MS), arm);
    else socket.destroy();
  };
  arm();
  socket.once("close", () => cancel());
}

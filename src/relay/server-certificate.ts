import type { Server } from "node:tls";
import { messageOf } from "../coded-error.js";
import { secureContextOptions } from "../http/mutual-tls.js";
import type { X509Svid } from "../identity/svid-source.js";
import type { RelayParts } from "./exchange.js";

/**
 * Gives `servers` the next SVID of the service `name`; connections that are open keep theirs. A certificate that cannot be used leaves the one before in its
 * place, and is shown as a problem; who connects then finds that until it expires. True if `svid` is in use now.
 */
export function replaceCertificate(
  parts: Pick<RelayParts, "emit">,
  servers: ReadonlySet<Server>,
  name: string,
  svid: X509Svid,
): boolean {
  try {
    for (const server of servers) server.setSecureContext(secureContextOptions(svid));
    return true;
  } catch (thrown) {
    const message = `service ${name} goes on with its last certificate: ${messageOf(thrown)}`;
    parts.emit({ event: "problem", severity: "error", code: "certificate-unusable", message });
    return false;
  }
}

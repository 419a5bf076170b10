import { JwtSvidError } from "./jwt-svid.js";
import { SpiffeId, SpiffeIdError } from "./spiffe-id.js";

/*
 * What the tokens of a launched agent say of its launch, in claims of our own beside those of the standard (JWT-SVID §3: other claims are the issuer's
 * choice, and who does not know them reads past them).
 */

/** The agents that launched the holder, nearest first: what the subject of an X.509-SVID says too. */
const LAUNCHED_BY = "agentid:launched_by";
/** Which launch of an instance it is: the next one of the same name is another. */
const LAUNCH = "agentid:launch";

/** A token's launch. */
export interface LaunchOfToken {
  /** SPIFFE IDs, nearest first; empty where no agent launched the holder. */
  readonly launchedBy: readonly string[];
  /** Of an instance only. */
  readonly launch: string | undefined;
}

/** The claims to sign; none for what nobody launched and is no instance. */
export function launchClaims({ launchedBy, launch }: LaunchOfToken): Readonly<Record<string, unknown>> {
  return {
    ...(launchedBy.length > 0 && { [LAUNCHED_BY]: launchedBy }),
    ...(launch !== undefined && { [LAUNCH]: launch }),
  };
}

/** What a token of our own trust domain says of its holder's launch. Throws JwtSvidError `jwt-svid-malformed`: a chain that cannot be read is no chain. */
export function launchOfClaims(claims: Readonly<Record<string, unknown>>): LaunchOfToken {
  const { [LAUNCHED_BY]: above = [], [LAUNCH]: launch } = claims;
  if (!Array.isArray(above)) throw malformed(LAUNCHED_BY);
  if (launch !== undefined && typeof launch !== "string") throw malformed(LAUNCH);
  return { launchedBy: above.map(spiffeIdIn), launch };
}

function spiffeIdIn(value: unknown): string {
  if (typeof value !== "string") throw malformed(LAUNCHED_BY);
  try {
    return SpiffeId.parse(value).toString();
  } catch (cause) {
    if (!(cause instanceof SpiffeIdError)) throw cause;
    throw malformed(LAUNCHED_BY, cause);
  }
}

function malformed(claim: string, cause?: unknown): JwtSvidError {
  return new JwtSvidError("jwt-svid-malformed", `the claim ${claim} is not what agentid writes`, { cause });
}

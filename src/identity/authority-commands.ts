import { CodedError } from "../coded-error.js";
import type { GenerationSlots, KnownAuthority } from "./authority-generation.js";
import { mayActivateAt } from "./authority-schedule.js";
import { type AuthorityState, authorityStateAfter } from "./authority-state.js";

/** One generation of authorities, for people and programs. */
export interface AuthorityReport {
  readonly state: Exclude<AuthorityState, "gone">;
  /** Hex of the X.509 authority's subject key identifier: the name of the generation. */
  readonly keyId: string;
  readonly jwtKeyId: string;
  readonly witKeyId: string | undefined;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** True if it is an intermediate of an upstream authority. */
  readonly upstream: boolean;
}

/** Every generation that is in the bundle, the one that signs first. */
export function authorityReports({ active, prepared, old }: GenerationSlots): readonly AuthorityReport[] {
  return [
    report("active", active),
    ...(prepared === undefined ? [] : [report("prepared", prepared)]),
    ...old.map((authority) => report(authority.tainted ? "tainted" : "old", authority)),
  ];
}

function report(state: AuthorityReport["state"], authority: KnownAuthority): AuthorityReport {
  const { keyId, jwtPublicKey, witPublicKey, notBefore, notAfter, upstreamChain } = authority;
  return {
    state,
    keyId,
    jwtKeyId: jwtPublicKey.kid ?? "",
    witKeyId: witPublicKey?.kid,
    notBefore,
    notAfter,
    upstream: upstreamChain.length > 0,
  };
}

/** The one generation whose X.509, JWT or WIT key id begins with `prefix`. Throws CodedError `authority-unknown`. */
export function generationNamed(slots: GenerationSlots, prefix: string): AuthorityReport {
  const known = authorityReports(slots);
  const ids = ({ keyId, jwtKeyId, witKeyId }: AuthorityReport) => [keyId, jwtKeyId, witKeyId ?? ""];
  const found = prefix === "" ? [] : known.filter((one) => ids(one).some((id) => id.startsWith(prefix)));
  const [one, another] = found;
  if (one !== undefined && another === undefined) return one;
  throw new CodedError(
    "authority-unknown",
    one === undefined
      ? `no authority of this trust domain has a key id that begins with ${JSON.stringify(prefix)}`
      : `several authorities have a key id that begins with ${JSON.stringify(prefix)}`,
    { hint: "agentid authority show lists them" },
  );
}

/**
 * Throws unless the prepared generation may sign now: CodedError `authority-state` if there is none, `authority-too-fresh` if verifiers have had it
 * for so short a time that one of them may meet a key that it does not know. `hurried` skips the latter.
 */
export function requireActivatable({ prepared }: GenerationSlots, now: number, hurried: boolean): void {
  if (prepared === undefined) {
    throw new CodedError("authority-state", "no authority is prepared", { hint: "agentid authority prepare" });
  }
  authorityStateAfter("prepared", "activate");
  const from = mayActivateAt(prepared);
  if (hurried || now >= from) return;
  throw new CodedError(
    "authority-too-fresh",
    `the prepared authority is in the bundle for less than 5 s; verifiers may not have it yet (from ${new Date(from).toISOString()} on)`,
    { hint: "try again in a moment, or use --now" },
  );
}

/** The slots with the old generation `keyId` marked as tainted: nothing that it signed is handed out any more. Throws CodedError `authority-unknown`, `authority-state`. */
export function withTainted(slots: GenerationSlots, prefix: string): GenerationSlots {
  const { keyId, state } = generationNamed(slots, prefix);
  authorityStateAfter(state, "taint");
  return { ...slots, old: slots.old.map((one) => (one.keyId === keyId ? { ...one, tainted: true } : one)) };
}

/** The slots without the old generation `keyId`: it is in the bundle no more. Throws CodedError `authority-unknown`, `authority-state`. */
export function withoutRevoked(slots: GenerationSlots, prefix: string): GenerationSlots {
  const { keyId, state } = generationNamed(slots, prefix);
  authorityStateAfter(state, "revoke");
  return { ...slots, old: slots.old.filter((one) => one.keyId !== keyId) };
}

import { CodedError } from "../coded-error.js";

/**
 * The life of one generation of authorities (X.509, JWT and WIT together, so that a verifier that has one key of a generation has all of them):
 *
 * ```
 *            activate            supersede          taint               revoke
 * prepared ───────────▶ active ────────────▶ old ──────────▶ tainted ─────────▶ gone
 *                                             └──────────────── revoke ────────────▲
 * ```
 *
 * `prepared` and whatever has signed (`active`, `old`, `tainted`) is in the bundle; `gone` is not. The end of its validity leads from each state to `gone`.
 * As SPIRE's local authorities: only a prepared one is activated, only an old one is tainted or revoked, the active one never.
 */
export type AuthorityState = "prepared" | "active" | "old" | "tainted" | "gone";

/** `supersede`: another one was activated. `discard`: a prepared one is replaced before it ever signed. `expire`: its validity is over. */
export type AuthorityEvent = "activate" | "supersede" | "discard" | "taint" | "revoke" | "expire";

const TRANSITIONS: Readonly<Record<AuthorityState, Partial<Record<AuthorityEvent, AuthorityState>>>> = {
  prepared: { activate: "active", discard: "gone", expire: "gone" },
  active: { supersede: "old", expire: "gone" },
  old: { taint: "tainted", revoke: "gone", expire: "gone" },
  tainted: { revoke: "gone", expire: "gone" },
  gone: {},
};

/** The state after `event`. Throws CodedError `authority-state` for an arrow that is not drawn above. */
export function authorityStateAfter(state: AuthorityState, event: AuthorityEvent): AuthorityState {
  const next = TRANSITIONS[state][event];
  if (next !== undefined) return next;
  throw new CodedError("authority-state", `an authority that is ${state} cannot be ${PAST_TENSE[event]}`, {
    hint: HINTS[event],
  });
}

const PAST_TENSE: Readonly<Record<AuthorityEvent, string>> = {
  activate: "activated",
  supersede: "superseded",
  discard: "discarded",
  taint: "tainted",
  revoke: "revoked",
  expire: "expired",
};

const HINTS: Readonly<Record<AuthorityEvent, string>> = {
  activate: "only a prepared one can: agentid authority prepare",
  supersede: "only the active one can",
  discard: "only a prepared one can",
  taint: "only an old one can: agentid authority prepare, then agentid authority activate, make the active one old",
  revoke: "only an old one can: agentid authority prepare, then agentid authority activate, make the active one old",
  expire: "it has ended already",
};

/**
 * When an authority is prepared, activated and retired, as a state machine over times only.
 *
 * ```
 *            prepare (half of the active one's life is over)
 *   steady ───────────────────────────────▶ prepared
 *     ▲                                        │ activate (a sixth of the active one's life is left, as SPIRE)
 *     └────────────────────────────────────────┘   the former active one becomes old: still in the bundle
 *   old ── retire (its NotAfter is past) ──▶ gone from the bundle
 *   any ── replace (the active one is past its NotAfter, or the clock is before its NotBefore) ──▶ steady
 * ```
 *
 * Verifiers so know a new authority for a third of its predecessor's life before anything is signed by it.
 */

/** NotBefore lies this far before the moment of creation, so that a peer whose clock is a little behind accepts a fresh certificate (XS-12, as SPIRE). */
export const NOT_BEFORE_CUSHION_MS = 10_000;

/** The times that matter of one pair of X.509 and JWT authority. */
export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** Who signs, who will sign, and who signed what is still valid. */
export interface AuthoritySlots<Authority extends Validity, Old extends Validity> {
  readonly active: Authority;
  readonly prepared: Authority | undefined;
  readonly old: readonly Old[];
}

export type AuthorityTransition = "prepare" | "activate" | "retire" | "replace";

/** The transition due at `now` (ms), or undefined. Repeated until undefined it catches up after a suspend of any length. */
export function dueTransition(slots: AuthoritySlots<Validity, Validity>, now: number): AuthorityTransition | undefined {
  const { active, prepared, old } = slots;
  if (now < active.notBefore.getTime()) return "replace";
  const preparedIsValid = prepared !== undefined && isValid(prepared, now);
  if (now >= active.notAfter.getTime()) return preparedIsValid ? "activate" : "replace";
  if (now >= activateAt(active) && preparedIsValid) return "activate";
  if (now >= prepareAt(active) && !preparedIsValid) return "prepare";
  if (old.some((authority) => now >= authority.notAfter.getTime())) return "retire";
  return undefined;
}

/** Makes an authority that is valid from now on, and strips one of what only a signer needs. */
export interface AuthorityLife<Authority extends Validity, Old extends Validity> {
  create(): Authority;
  retire(authority: Authority): Old;
}

/** The slots after `transition` at `now` (ms). */
export function applyTransition<Authority extends Validity, Old extends Validity>(
  slots: AuthoritySlots<Authority, Old>,
  transition: AuthorityTransition,
  now: number,
  life: AuthorityLife<Authority, Old>,
): AuthoritySlots<Authority, Old> {
  const { active, prepared, old } = slots;
  // What is not valid at `now` can vouch for nothing at `now`: expired, or made under a clock that has been set back since.
  const withActive = () => [life.retire(active), ...old].filter((authority) => isValid(authority, now));
  switch (transition) {
    case "prepare":
      return { active, prepared: life.create(), old };
    case "activate":
      return prepared === undefined ? slots : { active: prepared, prepared: undefined, old: withActive() };
    case "retire":
      return { active, prepared, old: old.filter((authority) => now < authority.notAfter.getTime()) };
    case "replace":
      return { active: life.create(), prepared: undefined, old: withActive() };
  }
}

/** Milliseconds since the epoch of the next transition that time alone brings. */
export function nextTransitionAt(slots: AuthoritySlots<Validity, Validity>): number {
  const { active, prepared, old } = slots;
  const times = old.map((authority) => authority.notAfter.getTime());
  times.push(prepared === undefined ? prepareAt(active) : activateAt(active), active.notAfter.getTime());
  return Math.min(...times);
}

/** When `authority`'s successor takes over, ms. */
export function activateAt(authority: Validity): number {
  return authority.notAfter.getTime() - lifetime(authority) / 6;
}

function prepareAt(authority: Validity): number {
  return authority.notAfter.getTime() - lifetime(authority) / 2;
}

/** From its creation on: the cushion is not part of it. */
function lifetime(authority: Validity): number {
  return authority.notAfter.getTime() - authority.notBefore.getTime() - NOT_BEFORE_CUSHION_MS;
}

/** True if `authority` may sign and be believed at `now` (ms). */
export function isValid(authority: Validity, now: number): boolean {
  return now >= authority.notBefore.getTime() && now < authority.notAfter.getTime();
}

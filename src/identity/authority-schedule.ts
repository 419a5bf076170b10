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
 * Verifiers so know a new authority for a third of its predecessor's life before anything is signed by it. Where the active one is no longer
 * wanted (the upstream authority has changed), its successor is prepared at once and takes over after `MINIMUM_KNOWN_MS`.
 */

/**
 * For at least this long a prepared authority is in the bundle before it signs, unless the active one has ended or a person says otherwise.
 * Streams have the new bundle within a turn of the event loop; this leaves room for a client that is busy.
 */
const MINIMUM_KNOWN_MS = 5_000;

/** NotBefore lies this far before the moment of creation, so that a peer whose clock is a little behind accepts a fresh certificate (XS-12, as SPIRE). */
export const NOT_BEFORE_CUSHION_MS = 10_000;

/** The times that matter of one generation of authorities. */
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

/** What somebody above us demands of our authorities. */
export interface Demands<Authority> {
  /** False for one that hangs below another upstream authority than ours does now. */
  isWanted(authority: Authority): boolean;
  /** No authority made now would be valid beyond this, ms. */
  readonly latestEnd: number;
}

const NO_DEMANDS: Demands<Validity> = { isWanted: () => true, latestEnd: Number.POSITIVE_INFINITY };

/** The transition due at `now` (ms), or undefined. Repeated until undefined it catches up after a suspend of any length. */
export function dueTransition<Authority extends Validity>(
  slots: AuthoritySlots<Authority, Validity>,
  now: number,
  demands: Demands<Authority> = NO_DEMANDS,
): AuthorityTransition | undefined {
  const { active, prepared, old } = slots;
  if (now < active.notBefore.getTime()) return "replace";
  const preparedIsGood = prepared !== undefined && isValid(prepared, now) && demands.isWanted(prepared);
  if (now >= active.notAfter.getTime()) return preparedIsGood ? "activate" : "replace";
  if (now >= successionAt(slots, demands) && preparedIsGood) return "activate";
  if (!preparedIsGood && (prepared !== undefined || now >= prepareAt(active, demands))) return "prepare";
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
export function nextTransitionAt<Authority extends Validity>(
  slots: AuthoritySlots<Authority, Validity>,
  demands: Demands<Authority> = NO_DEMANDS,
): number {
  const { active, prepared, old } = slots;
  const times = old.map((authority) => authority.notAfter.getTime());
  times.push(prepared === undefined ? prepareAt(active, demands) : successionAt(slots, demands));
  times.push(active.notAfter.getTime());
  return Math.min(...times);
}

/** When the prepared authority takes over, ms. */
function successionAt<Authority extends Validity>(
  { active, prepared }: AuthoritySlots<Authority, Validity>,
  demands: Demands<Authority>,
): number {
  return prepared === undefined || demands.isWanted(active) ? activateAt(active) : mayActivateAt(prepared);
}

/** From when on a prepared authority is known long enough to sign, ms. */
export function mayActivateAt(prepared: Validity): number {
  return prepared.notBefore.getTime() + NOT_BEFORE_CUSHION_MS + MINIMUM_KNOWN_MS;
}

/** When `authority`'s successor takes over, ms. */
export function activateAt(authority: Validity): number {
  return authority.notAfter.getTime() - lifetime(authority) / 6;
}

/** When `authority`'s successor is made, ms: never, if it could not outlive it. */
function prepareAt<Authority extends Validity>(authority: Authority, demands: Demands<Authority>): number {
  if (!demands.isWanted(authority)) return Number.NEGATIVE_INFINITY;
  if (authority.notAfter.getTime() >= wholeSecond(demands.latestEnd)) return Number.POSITIVE_INFINITY;
  return authority.notAfter.getTime() - lifetime(authority) / 2;
}

/** Certificates know whole seconds. */
function wholeSecond(milliseconds: number): number {
  return Math.floor(milliseconds / 1000) * 1000;
}

/** From its creation on: the cushion is not part of it. */
function lifetime(authority: Validity): number {
  return authority.notAfter.getTime() - authority.notBefore.getTime() - NOT_BEFORE_CUSHION_MS;
}

/** True if `authority` may sign and be believed at `now` (ms). */
export function isValid(authority: Validity, now: number): boolean {
  return now >= authority.notBefore.getTime() && now < authority.notAfter.getTime();
}

import type { AuditFields } from "../audit/audit-log.js";
import { preparedFields } from "../audit/chain.js";
import type { PreparedFields } from "../audit/prepared-fields.js";
import type { AccessRequest, Decision, DecisionPoint } from "../policy/access-request.js";
import { keptRequest } from "../policy/kept-request.js";
import type { Call } from "./exchange.js";
import type { RunningService } from "./running-service.js";

const MAX_KNOWN = 1_024;
/** What is longer is seldom asked for twice. */
const MAX_KEY_CHARACTERS = 1_024;

/** A call that was made before: by the same caller, on the same leg, of the same method and target. */
export class KnownCall<Seen> {
  readonly request: AccessRequest;
  #seen: Seen | undefined;
  #decided: { readonly like: Decision; readonly fields: (id: string) => PreparedFields } | undefined;

  constructor(request: AccessRequest) {
    this.request = keptRequest(request);
  }

  seen(make: () => Seen): Seen {
    this.#seen ??= make();
    return this.#seen;
  }

  /** What the record says of `decision`; `make` is asked where it says anything else than of the last but its id. */
  fieldsOf(decision: Decision, make: () => AuditFields): PreparedFields {
    if (this.#decided === undefined || !sameButId(this.#decided.like, decision)) {
      this.#decided = { like: decision, fields: preparedFields("decision", make(), "decision") };
    }
    return this.#decided.fields(decision.id);
  }
}

/**
 * The calls of late of one leg. What is worked out of a call's caller, method and target alone, the question to the decision point and what people see of it,
 * is worked out once; who calls is looked at, and the question decided and recorded, each time.
 */
export class KnownCalls<Seen> {
  /** Undefined: it was made once. Most that are made once are never made again. */
  readonly #calls = new Map<string, KnownCall<Seen> | undefined>();
  #point: DecisionPoint | undefined;
  #service: RunningService | undefined;

  /** The call that `call` repeats, about the question that `make` makes; undefined for one that is not known to come again. */
  find(call: Call, point: DecisionPoint, make: () => AccessRequest): KnownCall<Seen> | undefined {
    if (this.#point !== point || this.#service !== call.service) {
      this.#calls.clear();
      this.#point = point;
      this.#service = call.service;
    }
    const key = keyOf(call);
    if (key === undefined) return undefined;
    const found = this.#calls.get(key);
    if (found !== undefined) return found;
    const known = this.#calls.has(key) ? new KnownCall<Seen>(make()) : undefined;
    if (this.#calls.size >= MAX_KNOWN) this.#calls.clear();
    this.#calls.set(key, known);
    return known;
  }
}

/** Neither a method nor a target, a SPIFFE ID or a kind of evidence holds a blank; what the kernel says of a process comes last. */
function keyOf({ caller, request, target, webSocket }: Call): string | undefined {
  if (caller === undefined || target === undefined) return undefined;
  const { detail, evidence, id, launchedBy } = caller;
  const opens = webSocket === undefined ? "" : "websocket";
  const above = launchedBy.length === 0 ? "" : launchedBy.join();
  const key = `${request.method} ${target.raw} ${opens} ${id} ${above} ${evidence} ${detail}`;
  return key.length > MAX_KEY_CHARACTERS ? undefined : key;
}

/** The values that a decision names are the same object only where they are none: what a condition has read is another each time. */
function sameButId(one: Decision, other: Decision): boolean {
  return (
    one.allowed === other.allowed &&
    one.rule === other.rule &&
    one.at === other.at &&
    one.reason === other.reason &&
    one.engine === other.engine &&
    one.values === other.values &&
    one.policyDigest === other.policyDigest &&
    one.deniedAbove === other.deniedAbove &&
    one.shadow === other.shadow
  );
}

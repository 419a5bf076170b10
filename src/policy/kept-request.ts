import type { AccessRequest } from "./access-request.js";

const kept = new WeakSet<AccessRequest>();

/** `request`, frozen with all that is in it: who asks the same many times keeps it, and what follows from it alone is worked out once. */
export function keptRequest(request: AccessRequest): AccessRequest {
  kept.add(frozen(request));
  return request;
}

/** True for what `keptRequest` made. */
export function isKept(request: AccessRequest): boolean {
  return kept.has(request);
}

function frozen<Value extends object>(value: Value): Value {
  for (const member of Object.values(value)) if (typeof member === "object" && member !== null) frozen(member);
  return Object.freeze(value);
}

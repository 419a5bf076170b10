import { CodedError } from "../../coded-error.js";
import type { X509Svid } from "./x509-context.js";

/**
 * The SVID that `wanted` names: its SPIFFE ID, its path (`agents/billing`), its hint, or its path's last segment if only one has it; the
 * default identity if `wanted` is undefined. Throws CodedError `svid-unknown`, `svid-ambiguous`.
 */
export function pickSvid(svids: readonly X509Svid[], wanted: string | undefined): X509Svid {
  const candidates = wanted === undefined ? svids.slice(0, 1) : namedBy(svids, wanted);
  const [picked, another] = candidates;
  const held = svids.map(({ id }) => id.toString()).join(", ");
  if (picked === undefined) {
    throw new CodedError("svid-unknown", `this process does not have the identity ${JSON.stringify(wanted)}`, {
      hint: `it has ${held || "none"}`,
    });
  }
  if (another !== undefined) {
    throw new CodedError(
      "svid-ambiguous",
      `${JSON.stringify(wanted)} may be ${candidates.map(({ id }) => id).join(" or ")}`,
    );
  }
  return picked;
}

function namedBy(svids: readonly X509Svid[], wanted: string): readonly X509Svid[] {
  const exact = svids.filter(({ id, hint }) => id.toString() === wanted || id.name === wanted || hint === wanted);
  if (exact.length > 0) return exact;
  return svids.filter(({ id }) => id.name.split("/").at(-1) === wanted);
}

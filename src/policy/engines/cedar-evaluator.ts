import type { AuthorizationAnswer } from "@cedar-policy/cedar-wasm/nodejs";
import { type CedarLibrary, policySetSlots, schemaSlots } from "./cedar-library.js";
import { CedarIndex, type CedarPolicy } from "./cedar-policies.js";
import type { CedarQuestion } from "./cedar-request.js";
import type { CedarSchema } from "./cedar-schema.js";

/** Puts requests to Cedar with those policies only whose scope can match, parsed once. */
export interface CedarEvaluator {
  candidates(keys: CedarQuestion["keys"]): readonly CedarPolicy[];
  /** By these policies. With a schema the request is validated first; what it does not fit is a failure. Throws where they cannot be parsed. */
  evaluate(question: Omit<CedarQuestion, "keys" | "size">, policies: readonly CedarPolicy[]): AuthorizationAnswer;
}

const MAX_SLICES = 4096;

export function cedarEvaluator(
  cedar: CedarLibrary,
  policies: readonly CedarPolicy[],
  schema: CedarSchema | undefined,
): CedarEvaluator {
  const index = new CedarIndex(policies);
  const numbers = new Map(policies.map((policy, number) => [policy, number]));
  // Parsed sets are known by the policies in them.
  const slices = new Map<string, readonly CedarPolicy[]>();

  const sliceOf = (candidates: readonly CedarPolicy[]): readonly CedarPolicy[] => {
    const key = candidates
      .map((policy) => numbers.get(policy) ?? 0)
      .sort((a, b) => a - b)
      .join();
    const known = slices.get(key);
    if (known !== undefined) return known;
    if (slices.size >= MAX_SLICES) slices.clear();
    slices.set(key, candidates);
    return candidates;
  };

  return {
    candidates: ({ action, principal, resource }) => index.candidates(action, principal, resource),
    evaluate({ principal, action, resource, context, entities }, candidates) {
      const slice = sliceOf(candidates);
      const preparsedPolicySetId = policySetSlots.nameOf(slice, (name) => {
        const staticPolicies = Object.fromEntries(slice.map(({ id, text }) => [id, text]));
        accepted(cedar.preparsePolicySet(name, { staticPolicies }));
      });
      const call = { principal, action, resource, context, entities, preparsedPolicySetId };
      if (schema === undefined) return cedar.statefulIsAuthorized(call);
      const preparsedSchemaName = schemaSlots.nameOf(schema, (name) =>
        accepted(cedar.preparseSchema(name, schema.source)),
      );
      return cedar.statefulIsAuthorized({ ...call, preparsedSchemaName, validateRequest: true });
    },
  };
}

function accepted(answer: ReturnType<CedarLibrary["preparsePolicySet"]>): void {
  if (answer.type === "failure") throw new Error(answer.errors[0]?.message ?? "Cedar cannot parse it");
}

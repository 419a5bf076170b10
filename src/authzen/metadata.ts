/** Paths of the endpoints: the standard's own (AuthZEN Authorization API 1.0, Transport). */
export const PATHS = {
  evaluation: "/access/v1/evaluation",
  evaluations: "/access/v1/evaluations",
  subject: "/access/v1/search/subject",
  resource: "/access/v1/search/resource",
  action: "/access/v1/search/action",
  metadata: "/.well-known/authzen-configuration",
} as const;

/**
 * The metadata of the decision point at `base`, the very identifier by which the document was asked for: an enforcement point "MUST refuse the document if
 * it is not identical". "Parameters with zero values MUST be omitted."
 */
export function metadataAt(base: string, obligations: readonly string[]): Record<string, unknown> {
  return {
    policy_decision_point: base,
    access_evaluation_endpoint: `${base}${PATHS.evaluation}`,
    access_evaluations_endpoint: `${base}${PATHS.evaluations}`,
    search_subject_endpoint: `${base}${PATHS.subject}`,
    search_resource_endpoint: `${base}${PATHS.resource}`,
    search_action_endpoint: `${base}${PATHS.action}`,
    // `capabilities` are "registered IANA URNs"; the obligations profile registers none.
    ...(obligations.length > 0 && { supported_obligations: obligations }),
  };
}

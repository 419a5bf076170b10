import { federationRequirements } from "./federation.js";
import { svidRequirements } from "./svids.js";
import { workloadApiRequirements } from "./workload-api.js";

/** Every requirement that tests can cite. */
export const requirements = [...workloadApiRequirements, ...svidRequirements, ...federationRequirements];

export type RequirementId = (typeof requirements)[number]["id"];

/**
 * Says in a test's title which requirements it shows to hold: ``it(`${verifies("XR-1", "XR-8")} …`)``.
 * A title that begins with the ids themselves (`it("XR-1 XR-8 …")`) cites them as well.
 */
export function verifies(...ids: readonly [RequirementId, ...RequirementId[]]): string {
  return ids.join(" ");
}

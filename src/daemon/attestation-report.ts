import type { Caller } from "../attestation/caller.js";
import { FACT_DESCRIPTIONS } from "../attestation/fact-descriptions.js";
import { selectorsOf } from "../attestation/selectors.js";
import type { AttestationReport } from "../control-api/routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";

/**
 * What `agentid attest PID` shows: facts with where they come from and who could forge them, selectors, identities that follow and on what they rest,
 * and those that do not with everything that is missing.
 */
export function attestationReport(caller: Caller, registry: IdentityRegistry): AttestationReport {
  const { facts } = caller;
  const { granted, missed } = registry.entitlementsOf(caller);
  const askedBy = new Map(registry.examine(caller).map(({ identity, asked }) => [identity.name, asked]));
  return {
    pid: facts.pid,
    evidence: facts.evidence,
    ...(facts.weakness !== undefined && { weakness: facts.weakness }),
    facts: FACT_DESCRIPTIONS.flatMap(({ name, source, strength, forgedBy, read }) => {
      const value = read(caller);
      return value === undefined ? [] : [{ name, value, source, strength, forgedBy }];
    }),
    missing: Object.entries(facts.missing).map(([name, reason]) => ({ name, reason })),
    selectors: [...selectorsOf(facts)],
    identities: granted.map(({ identity, evidence }) => ({
      name: identity.name,
      spiffeId: identity.id.toString(),
      evidence,
      restsOn: (askedBy.get(identity.name) ?? []).map(({ what }) => what),
    })),
    missed: missed.map(({ identity, failed, detail }) => {
      const asked = askedBy.get(identity.name) ?? [];
      const failures = asked.filter(({ holds }) => !holds).map(({ what, detail: why }) => ({ what, detail: why }));
      const holds = asked.filter((one) => one.holds).map(({ what }) => what);
      return {
        name: identity.name,
        failed,
        detail,
        failures,
        holds,
        nearly: failures.length === 1 && holds.length > 0,
      };
    }),
  };
}

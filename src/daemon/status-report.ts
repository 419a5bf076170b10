import type { AuditLog } from "../audit/audit-log.js";
import { describeUpstream } from "../config/compare.js";
import { urlOfTarget } from "../config/describe-egress.js";
import { describeIdentity } from "../config/describe-identity.js";
import { secretsIn } from "../config/egress-values.js";
import type { Status } from "../control-api/routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type { SvidKeeper } from "../identity/svid-keeper.js";
import type { TrustDomainAuthority } from "../identity/trust-domain-authority.js";
import type { Relay } from "../relay/relay.js";
import type { EventBus } from "./event-bus.js";
import type { LiveView } from "./live-view.js";
import type { ProjectReload } from "./project-reload.js";
import type { Revoking } from "./revoking.js";
import type { ServiceSupervisor } from "./services.js";

export interface StatusSources {
  readonly startedAt: Date;
  readonly ephemeral: boolean;
  readonly workloadApi: string;
  readonly control: string;
  readonly authzen: () => Status["authzen"];
  readonly reload: ProjectReload;
  readonly keeper: SvidKeeper;
  readonly registry: Pick<IdentityRegistry, "instances">;
  readonly authority: TrustDomainAuthority;
  readonly revoking: Revoking;
  readonly relay: Relay;
  readonly services: ServiceSupervisor;
  readonly live: LiveView;
  readonly audit: AuditLog & { readonly head: string };
  readonly bus: EventBus;
}

/** Everything a dashboard needs to begin with; the event stream says what changes after. */
export function statusReport(sources: StatusSources): Status {
  const { config, policies, policyDigest } = sources.reload.current;
  const held = new Map(sources.keeper.held.map(({ identity, svid }) => [identity.name, svid]));
  return {
    trustDomain: config.trustDomain.name,
    projectDirectory: config.projectDirectory,
    pid: process.pid,
    startedAt: sources.startedAt.toISOString(),
    ephemeral: sources.ephemeral,
    workloadApi: sources.workloadApi,
    control: sources.control,
    authzen: sources.authzen(),
    policy: { digest: policyDigest, rules: policies.rules.length, files: policies.files },
    authority: {
      notAfter: sources.authority.active.notAfter.toISOString(),
      rotateAt: sources.authority.rotateAt.toISOString(),
    },
    identities: [...config.identities, ...sources.registry.instances()].map((identity) => {
      const svid = held.get(identity.name);
      return {
        name: identity.name,
        spiffeId: identity.id.toString(),
        how: describeIdentity(identity),
        ...(svid && { notAfter: svid.notAfter.toISOString(), rotateAt: svid.rotateAt.toISOString() }),
        pids: [...sources.live.pidsOf(identity.name)],
      };
    }),
    services: config.services.map((service) => {
      const addresses = sources.relay.addressesOf(service.name);
      return {
        name: service.name,
        spiffeId: service.id.toString(),
        protocol: service.protocol,
        url: addresses?.url ?? "",
        ...(addresses?.socket !== undefined && { socket: addresses.socket }),
        mtls: addresses ? `${addresses.mtls.host}:${addresses.mtls.port}` : "",
        upstream: describeUpstream(service.upstream, service.protocol),
        reachableAround: service.upstream.kind === "tcp",
        state: service.upstream.kind === "command" ? (sources.services.stateOf(service.name) ?? "stopped") : "running",
      };
    }),
    ...(config.egress.length > 0 && {
      egress: config.egress.map((target) => ({
        name: target.name,
        spiffeId: target.id.toString(),
        url: sources.relay.egressUrlOf(target.name) ?? "",
        target: urlOfTarget(target),
        secrets: [...new Set(target.headers.flatMap(secretsIn))],
        ...(target.connect === true && { byConnect: true as const }),
      })),
    }),
    ...(sources.reload.pending && { pendingReload: sources.reload.pending }),
    ...(sources.revoking.list.length > 0 && { revoked: [...sources.revoking.list] }),
    problems: [...sources.live.problems],
    counts: sources.live.counts,
    recordSize: sources.audit.size,
    recordHead: sources.audit.head,
    nextEvent: sources.bus.next,
  };
}

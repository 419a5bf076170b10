import { CodedError } from "../coded-error.js";
import type { BundleEndpointConfig, HostPort } from "../config/config.js";
import { BUNDLE_ENDPOINT_IDENTITY } from "../config/config.js";
import { formatAddress } from "../config/describe-federation.js";
import type { BundleReport, RelationshipReport } from "../control-api/federation-routes.js";
import { refreshSeconds } from "../federation/bundle-poll.js";
import { parseBundleFile } from "../federation/first-bundle.js";
import type { ForeignBundle } from "../federation/foreign-bundles.js";
import type { FollowedRelationship } from "../federation/relationships.js";
import { type SpiffeBundle, serialiseSpiffeBundle } from "../spiffe/spiffe-bundle.js";
import { SpiffeId, SpiffeIdError, TrustDomain } from "../spiffe/spiffe-id.js";
import { lastEndOf } from "../spiffe/x509-bundle.js";
import type { ControlHandlers } from "./control-server.js";
import type { Federating } from "./federating.js";

type FederationRoute = "bundles" | "bundle" | "setBundle" | "deleteBundle" | "federation" | "refreshFederation";

/** The routes about bundles and other trust domains. */
export function createFederationHandlers(federating: Federating): Pick<ControlHandlers, FederationRoute> {
  const { ours, clock, published, foreign, relationships } = federating;

  function bundleOf(name: string | undefined): { report: BundleReport; bundle: SpiffeBundle } {
    if (name === undefined || trustDomainOf(name).equals(ours)) return ownBundle();
    const found = foreign.find(trustDomainOf(name));
    if (found !== undefined) return { report: foreignReport(found), bundle: found.bundle };
    throw new CodedError("bundle-unknown", `there is no bundle of ${name}`, { hint: "agentid bundle list" });
  }

  function ownBundle(): { report: BundleReport; bundle: SpiffeBundle } {
    const bundle = published.current();
    return { report: { trustDomain: ours.name, source: "own", ...described(bundle) }, bundle };
  }

  return {
    bundles: () => ({ bundles: [ownBundle().report, ...foreign.all.map(foreignReport)] }),
    bundle({ trustDomain }) {
      const { report, bundle } = bundleOf(trustDomain);
      return { ...report, document: serialiseSpiffeBundle(bundle) };
    },
    setBundle({ trustDomain: name, document }) {
      const trustDomain = trustDomainOf(name);
      const bundle = parseBundleFile(document, trustDomain);
      // The command is the acceptance (D13): who may run it is the owner, and no agent.
      const set: ForeignBundle = {
        ...{ trustDomain, bundle, source: { kind: "command" } },
        receivedAt: new Date(clock.now()),
      };
      foreign.put(set);
      return foreignReport(set);
    },
    deleteBundle({ trustDomain: name }) {
      const trustDomain = trustDomainOf(name);
      if (trustDomain.equals(ours)) throw new CodedError("bundle-own", `${ours} is this trust domain`);
      if (relationships.all.some(({ relationship }) => relationship.trustDomain.equals(trustDomain))) {
        throw new CodedError("bundle-federated", `the bundle of ${trustDomain} is followed by agentid.yaml`, {
          hint: `remove ${trustDomain} from federation.trustDomains`,
        });
      }
      if (!foreign.remove(trustDomain, "by command")) {
        throw new CodedError("bundle-unknown", `there is no bundle of ${trustDomain}`, { hint: "agentid bundle list" });
      }
      return {};
    },
    federation: () => ({
      ...(federating.endpoint && { endpoint: endpointReport(federating.endpoint, ours) }),
      ...(federating.oidc && {
        oidc: { issuer: federating.oidc.config.issuer, listen: formatAddress(federating.oidc.address) },
      }),
      relationships: relationships.all.map((one) =>
        relationshipReport(one, foreign.find(one.relationship.trustDomain)),
      ),
    }),
    async refreshFederation({ trustDomain: name }) {
      const results = await relationships.refresh(name === undefined ? undefined : trustDomainOf(name));
      return {
        results: results.map(({ trustDomain, result }) => ({
          trustDomain: trustDomain.name,
          outcome: result.outcome,
          ...(result.outcome === "failed" && { problem: { code: result.code, message: result.message } }),
        })),
      };
    },
  };
}

function trustDomainOf(name: string): TrustDomain {
  try {
    return TrustDomain.parse(name);
  } catch (cause) {
    if (!(cause instanceof SpiffeIdError)) throw cause;
    throw new CodedError("bad-request", cause.message, { cause });
  }
}

function foreignReport({ trustDomain, bundle, source, receivedAt }: ForeignBundle): BundleReport {
  return {
    trustDomain: trustDomain.name,
    source: source.kind,
    receivedAt: receivedAt.toISOString(),
    ...described(bundle),
  };
}

function described({ sequence, refreshHintSeconds, x509Authorities, jwtKeys }: SpiffeBundle) {
  const notAfter = lastEndOf(x509Authorities);
  return {
    ...(sequence !== undefined && { sequence: sequence.toString() }),
    ...(refreshHintSeconds !== undefined && { refreshHintSeconds }),
    x509Authorities: x509Authorities.length,
    jwtKeys: jwtKeys.length,
    ...(notAfter !== undefined && { notAfter: notAfter.toISOString() }),
  };
}

function endpointReport({ config, address }: { config: BundleEndpointConfig; address: HostPort }, ours: TrustDomain) {
  return {
    url: `https://${formatAddress(address)}/`,
    ...(config.web === undefined
      ? { profile: "https_spiffe", spiffeId: SpiffeId.of(ours, BUNDLE_ENDPOINT_IDENTITY).toString() }
      : { profile: "https_web" }),
  };
}

function relationshipReport(
  { relationship, poll }: FollowedRelationship,
  held: ForeignBundle | undefined,
): RelationshipReport {
  const { trustDomain, url, spiffe } = relationship;
  return {
    trustDomain: trustDomain.name,
    url,
    profile: spiffe === undefined ? "https_web" : "https_spiffe",
    ...(spiffe && { endpointSpiffeId: spiffe.endpointId.toString() }),
    state: poll.state,
    refreshSeconds: refreshSeconds(held?.bundle.refreshHintSeconds),
    nextAt: poll.nextAt.toISOString(),
    ...(poll.lastSuccess && { lastSuccess: poll.lastSuccess.toISOString() }),
    ...(poll.failure && { problem: poll.failure }),
    ...(held && { bundle: foreignReport(held) }),
  };
}

import { join } from "node:path";
import type { LaunchEvent } from "../attestation/launches.js";
import { messageOf } from "../coded-error.js";
import { type ForeignBundles, openForeignBundles } from "../federation/foreign-bundles.js";
import { joinTrustBundles } from "../federation/trust-bundles.js";
import { createTrustBundles, type TrustBundles } from "../identity/bundles.js";
import { openDiskKeyStore } from "../identity/disk-key-store.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import { createIssuedCredentials, type IssuedCredentials } from "../identity/issued-credentials.js";
import { createMemoryKeyStore, type KeyStore } from "../identity/key-store.js";
import { createIdentityRegistry, type UpdatableIdentityRegistry } from "../identity/registry.js";
import { createMemoryRevocationStore, openRevocationStore } from "../identity/revocation-store.js";
import { createRevocations, type Revocations } from "../identity/revocations.js";
import { createSvidKeeper, type SvidKeeper } from "../identity/svid-keeper.js";
import { createTrustDomainAuthority, type TrustDomainAuthority } from "../identity/trust-domain-authority.js";
import { openUpstreamFiles } from "../identity/upstream-files.js";
import { createWitKeeper, type WitKeeper } from "../identity/wit-keeper.js";
import { watchClock } from "../platform/clock-watch.js";
import { openKeychain } from "../platform/keychain.js";
import { launchChainOf } from "../spiffe/launch-chain.js";
import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import type { Attesting } from "./attesting.js";
import type { Foundation } from "./foundation.js";

/** The authority of the trust domain, whom it knows, and what it has issued. */
export interface Issuing {
  readonly authority: TrustDomainAuthority;
  /** Our own bundle and those of other trust domains. */
  readonly bundles: TrustBundles;
  readonly foreign: ForeignBundles;
  readonly registry: UpdatableIdentityRegistry;
  readonly keeper: SvidKeeper;
  readonly witKeeper: WitKeeper;
  readonly revocations: Revocations;
  readonly issued: IssuedCredentials;
}

export async function startIssuing(foundation: Foundation, { launches }: Attesting): Promise<Issuing> {
  const { clock, audit, bus, undo, problem, project } = foundation;
  const { trustDomain } = project.config;
  const upstream = openUpstreamFiles({
    configured: () => foundation.project.config.upstreamAuthority,
    clock,
    onProblem: (thrown) => problem("error", "upstream-authority", messageOf(thrown)),
  });
  const authority = createTrustDomainAuthority({
    trustDomain,
    lifetimeSeconds: () => foundation.project.config.lifetimes.caSeconds,
    upstream: () => upstream.current,
    keyStore: await openKeyStore(foundation),
    clock,
    audit,
    onProblem: (thrown) => problem("error", "authority", messageOf(thrown)),
  });
  undo.push(() => authority.close());
  const revocations = createRevocations({
    store: keepsNothing(foundation)
      ? createMemoryRevocationStore()
      : openRevocationStore(join(foundation.folders.state, "revocations")),
    clock,
    onProblem: (thrown) => problem("error", "revocation", messageOf(thrown)),
  });
  undo.push(() => revocations.close());
  const issued = createIssuedCredentials();
  const foreign = openForeignBundles({
    ours: trustDomain,
    directory: join(foundation.folders.state, "bundles"),
    audit,
    onProblem: (thrown) => problem("error", "bundle", messageOf(thrown)),
  });
  const registry = createIdentityRegistry(project.config, project.lock, undefined, revocations, launches);
  const bundles = joinTrustBundles(
    trustDomain,
    createTrustBundles(authority, {
      refusalOf: (id, chain) => revocations.refusalOf(id, chain) ?? refusalOfLaunch(registry, trustDomain, id, chain),
      revokedBy: (keyId) => revocations.revokedBy(keyId),
      onChange: (listener) => revocations.onChange(listener),
    }),
    foreign,
  );
  const concernsOthers = ({ granted, descendants }: LaunchEvent) => descendants || granted.instance !== undefined;
  undo.push(launches.onStarted((launch) => concernsOthers(launch) && registry.launchesChanged()));
  undo.push(launches.onEnded((launch) => concernsOthers(launch) && registry.launchesChanged()));
  const keeper = createSvidKeeper({
    authority,
    registry,
    lifetimes: () => foundation.project.config.lifetimes,
    jwtIssuer: () => foundation.project.config.oidc?.issuer,
    issued,
    clock,
    audit,
    onProblem: (thrown) => problem("error", "svid", messageOf(thrown)),
  });
  undo.push(() => keeper.close());
  // The next launch as the same identity is another one's work: what it presents shall not be what this one may have left somewhere.
  undo.push(launches.onEnded(({ name }) => keeper.forgetJwtSvids(name)));
  const witKeeper = createWitKeeper({
    authority,
    registry,
    issued,
    lifetimes: () => foundation.project.config.lifetimes,
    clock,
    audit,
    onProblem: (thrown) => problem("error", "svid", messageOf(thrown)),
  });
  undo.push(() => witKeeper.close());
  undo.push(
    watchClock({
      clock,
      onJump: () => {
        for (const one of [authority, revocations, keeper, witKeeper]) one.wake();
      },
      onTick: () => {
        if (upstream.refresh()) authority.wake();
      },
    }),
  );
  keeper.onChange(({ change, identity, svid }) =>
    bus.emit({
      event: "identity",
      name: identity.name,
      spiffeId: identity.id.toString(),
      change,
      ...(change === "removed"
        ? {}
        : { notAfter: svid.notAfter.toISOString(), rotateAt: svid.rotateAt.toISOString(), serial: svid.serial }),
    }),
  );
  return { authority, bundles, foreign, registry, keeper, witKeeper, revocations, issued };
}

/** What a certificate of ours says of its holder's launch must still hold: whom it names above it, and that its instance lives. */
function refusalOfLaunch(
  registry: IdentityRegistry,
  trustDomain: TrustDomain,
  id: SpiffeId,
  [leaf]: readonly Buffer[],
): string | undefined {
  if (!id.memberOf(trustDomain)) return undefined;
  return registry.refusalOf(id, leaf === undefined ? [] : launchChainOf(leaf));
}

function keepsNothing({ options, project }: Foundation): boolean {
  return options.ephemeral || project.config.keys === "memory";
}

async function openKeyStore(foundation: Foundation): Promise<KeyStore> {
  const { project, folders, problem } = foundation;
  if (keepsNothing(foundation)) return createMemoryKeyStore();
  const store = await openDiskKeyStore({
    directory: join(folders.state, "keys"),
    trustDomain: project.config.trustDomain,
    keychain: await openKeychain(),
  });
  if (store.protection === "none") {
    problem(
      "warning",
      "keys-unprotected",
      "no keychain here: every process of this user can read the CA keys in .agentid/keys (`keys: memory` keeps none)",
    );
  }
  return store;
}

import { join } from "node:path";
import { messageOf } from "../coded-error.js";
import { type ForeignBundles, openForeignBundles } from "../federation/foreign-bundles.js";
import { joinTrustBundles } from "../federation/trust-bundles.js";
import { createTrustBundles, type TrustBundles } from "../identity/bundles.js";
import { openDiskKeyStore } from "../identity/disk-key-store.js";
import { createMemoryKeyStore, type KeyStore } from "../identity/key-store.js";
import { createIdentityRegistry, type UpdatableIdentityRegistry } from "../identity/registry.js";
import { createSvidKeeper, type SvidKeeper } from "../identity/svid-keeper.js";
import { createTrustDomainAuthority, type TrustDomainAuthority } from "../identity/trust-domain-authority.js";
import { createWitKeeper, type WitKeeper } from "../identity/wit-keeper.js";
import { openKeychain } from "../platform/keychain.js";
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
}

export async function startIssuing(foundation: Foundation): Promise<Issuing> {
  const { clock, audit, bus, undo, problem, project } = foundation;
  const { trustDomain } = project.config;
  const authority = createTrustDomainAuthority({
    trustDomain,
    lifetimeSeconds: () => foundation.project.config.lifetimes.caSeconds,
    keyStore: await openKeyStore(foundation),
    clock,
    audit,
    onProblem: (thrown) => problem("error", "authority", messageOf(thrown)),
  });
  undo.push(() => authority.close());
  const foreign = openForeignBundles({
    ours: trustDomain,
    directory: join(foundation.folders.state, "bundles"),
    audit,
    onProblem: (thrown) => problem("error", "bundle", messageOf(thrown)),
  });
  const bundles = joinTrustBundles(trustDomain, createTrustBundles(authority), foreign);
  const registry = createIdentityRegistry(project.config, project.lock);
  const keeper = createSvidKeeper({
    authority,
    registry,
    lifetimes: () => foundation.project.config.lifetimes,
    jwtIssuer: () => foundation.project.config.oidc?.issuer,
    clock,
    audit,
    onProblem: (thrown) => problem("error", "svid", messageOf(thrown)),
  });
  undo.push(() => keeper.close());
  const witKeeper = createWitKeeper({
    authority,
    registry,
    lifetimes: () => foundation.project.config.lifetimes,
    clock,
    audit,
    onProblem: (thrown) => problem("error", "svid", messageOf(thrown)),
  });
  undo.push(() => witKeeper.close());
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
  return { authority, bundles, foreign, registry, keeper, witKeeper };
}

async function openKeyStore({ options, project, folders, problem }: Foundation): Promise<KeyStore> {
  if (options.ephemeral || project.config.keys === "memory") return createMemoryKeyStore();
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

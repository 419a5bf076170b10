import { readdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import type { AuditLog } from "../audit/audit-log.js";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import { createListeners } from "../identity/listeners.js";
import { preparePrivateDirectory, readPrivateFile, writePrivateFile } from "../identity/private-file.js";
import { type SpiffeBundle, serialiseSpiffeBundle } from "../spiffe/spiffe-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { requireTrustDomain } from "../spiffe/x509-bundle.js";
import { fileNameOf, readStoredBundle, writtenBundle } from "./foreign-bundle-file.js";

/** What is believed of another trust domain, and by whose word. */
export interface ForeignBundle {
  readonly trustDomain: TrustDomain;
  readonly bundle: SpiffeBundle;
  readonly source: BundleSource;
  readonly receivedAt: Date;
}

/** `command`: the administrator gave it. `endpoint`: it followed from the relationship of that name in `agentid.yaml`, and goes with it. */
export type BundleSource = { readonly kind: "command" } | { readonly kind: "endpoint"; readonly relationship: string };

/** The bundles of other trust domains, one each and never merged (D12), kept across restarts. */
export interface ForeignBundles {
  /** By name. */
  readonly all: readonly ForeignBundle[];
  find(trustDomain: TrustDomain): ForeignBundle | undefined;
  /**
   * Keeps and records `foreign`, then lets it count. Throws CodedError `bundle-own`, BundleError `bundle-trust-domain`, and what
   * writing and recording throw; then nothing has changed.
   */
  put(foreign: ForeignBundle): void;
  /** Ends the trust in that trust domain, `why` for the record; false if there was none. Throws what recording throws. */
  remove(trustDomain: TrustDomain, why: string): boolean;
  /** What is believed changed. The returned function unsubscribes. */
  onChange(listener: () => void): () => void;
}

export interface ForeignBundlesOptions {
  readonly ours: TrustDomain;
  /** 0700; made when the first bundle comes. */
  readonly directory: string;
  readonly audit: AuditLog;
  /** Told of files that cannot be read (their trust domains are then not trusted) and of listeners that throw. */
  readonly onProblem: (thrown: unknown) => void;
}

/** The bundles stored in `directory`. */
export function openForeignBundles(options: ForeignBundlesOptions): ForeignBundles {
  const { ours, directory, audit, onProblem } = options;
  const listeners = createListeners<void>(onProblem);
  const bundles = new Map<string, ForeignBundle>();
  for (const stored of storedBundles(directory, onProblem)) {
    if (stored.trustDomain.equals(ours)) onProblem(ownBundle(ours));
    else bundles.set(stored.trustDomain.name, stored);
  }

  return {
    get all() {
      return [...bundles.values()].sort((one, other) => (one.trustDomain.name < other.trustDomain.name ? -1 : 1));
    },
    find: ({ name }) => bundles.get(name),
    put(foreign) {
      const { trustDomain, bundle, source } = foreign;
      if (trustDomain.equals(ours)) throw ownBundle(ours);
      requireTrustDomain(bundle.x509Authorities, trustDomain);
      audit.append(
        "bundle.set",
        { trustDomain: trustDomain.name, source: source.kind, ...described(bundle) },
        { sync: true },
      );
      preparePrivateDirectory(directory);
      writePrivateFile(join(directory, fileNameOf(trustDomain)), writtenBundle(foreign));
      const before = bundles.get(trustDomain.name);
      const same = before !== undefined && serialiseSpiffeBundle(before.bundle) === serialiseSpiffeBundle(bundle);
      // The very same buffers where nothing changed: what was derived from them stays good.
      bundles.set(trustDomain.name, same ? { ...foreign, bundle: before.bundle } : foreign);
      if (!same) listeners.notify();
    },
    remove(trustDomain, why) {
      if (!bundles.has(trustDomain.name)) return false;
      audit.append("bundle.deleted", { trustDomain: trustDomain.name, why }, { sync: true });
      // Trust ends also where the file cannot be removed; then it is said that it would come back.
      bundles.delete(trustDomain.name);
      try {
        unlinkSync(join(directory, fileNameOf(trustDomain)));
      } catch (thrown) {
        if (codeOf(thrown) !== "ENOENT") onProblem(thrown);
      }
      listeners.notify();
      return true;
    },
    onChange: (listener) => listeners.add(listener),
  };
}

function storedBundles(directory: string, onProblem: (thrown: unknown) => void): readonly ForeignBundle[] {
  return namesIn(directory).flatMap((name) => {
    try {
      const text = readPrivateFile(join(directory, name));
      if (text === undefined) return [];
      const stored = readStoredBundle(text);
      if (fileNameOf(stored.trustDomain) === name) return [stored];
      throw new CodedError("bundle-malformed", `it holds the bundle of ${stored.trustDomain}`);
    } catch (thrown) {
      const message = `${join(directory, name)} is not believed: ${messageOf(thrown)}`;
      onProblem(new CodedError("bundle-unreadable", message, { cause: thrown }));
      return [];
    }
  });
}

function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith(".json") && !name.startsWith("."));
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return [];
    throw thrown;
  }
}

function described(bundle: SpiffeBundle) {
  return {
    // All 64 bits, which a JSON number would not keep.
    spiffeSequence: bundle.sequence?.toString() ?? null,
    x509Authorities: bundle.x509Authorities.length,
    jwtKeys: bundle.jwtKeys.map(({ kid }) => kid ?? ""),
  };
}

function ownBundle(ours: TrustDomain): CodedError {
  return new CodedError("bundle-own", `${ours} is this trust domain: nobody else says what it consists of`);
}

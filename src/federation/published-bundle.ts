import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { z } from "zod";
import type { TrustBundles } from "../identity/bundles.js";
import { preparePrivateDirectory, readPrivateFile, writePrivateFile } from "../identity/private-file.js";
import type { Clock } from "../platform/clock.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import { type SpiffeBundle, serialiseSpiffeBundle } from "../spiffe/spiffe-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";

/** Our own bundle as other trust domains get it. */
export interface PublishedBundle {
  /** As it is now. Throws what keeping its sequence throws: nothing is published that could be contradicted after a restart. */
  current(): SpiffeBundle;
}

export interface PublishedBundleOptions {
  readonly ours: TrustDomain;
  readonly bundles: TrustBundles;
  /** Where the last sequence is kept; its folder is 0700. */
  readonly file: string;
  /** Lifetime of an authority, of which a third passes between its preparation and its first use. */
  readonly authorityLifetimeSeconds: () => number;
  readonly clock: Clock;
}

const lastPublished = z.strictObject({ sequence: z.string().regex(/^\d{1,20}$/), keys: z.string() });

const LONGEST_HINT_SECONDS = 300;
/** Federation §6.1: a new key is to be published 3 to 5 refresh hints before it is used. */
const REFRESHES_BEFORE_USE = 5;

/**
 * The bundle of `ours` with a `spiffe_sequence` that grows with each change of its keys, across restarts. A trust domain that lost its state
 * begins at the time of day in seconds, which lies above all that was counted before: its peers do not take it for something old.
 */
export function createPublishedBundle(options: PublishedBundleOptions): PublishedBundle {
  const { ours, bundles, file, clock } = options;
  let last: { readonly sequence: bigint; readonly keys: string } | undefined;

  function sequenceOf(keys: string): bigint {
    last ??= readLast(file);
    if (last?.keys === keys) return last.sequence;
    const now = BigInt(Math.floor(clock.now() / 1000));
    const next = last === undefined || last.sequence < now ? now : last.sequence + 1n;
    preparePrivateDirectory(dirname(file));
    writePrivateFile(file, `${JSON.stringify({ sequence: next.toString(), keys })}\n`);
    last = { sequence: next, keys };
    return next;
  }

  return {
    current() {
      const x509Authorities = bundles.x509Bundle(ours)?.authorities ?? [];
      const jwtKeys = (bundles.jwtBundle(ours)?.keys ?? []) as readonly Jwk[];
      const content = { x509Authorities, jwtKeys, sequence: undefined, refreshHintSeconds: undefined };
      const keys = createHash("sha256").update(serialiseSpiffeBundle(content)).digest("hex");
      return {
        ...content,
        sequence: sequenceOf(keys),
        refreshHintSeconds: refreshHint(options.authorityLifetimeSeconds()),
      };
    },
  };
}

function refreshHint(authorityLifetimeSeconds: number): number {
  const untilUse = authorityLifetimeSeconds / 3;
  return Math.max(1, Math.min(LONGEST_HINT_SECONDS, Math.floor(untilUse / REFRESHES_BEFORE_USE)));
}

function readLast(file: string): { sequence: bigint; keys: string } | undefined {
  const text = readPrivateFile(file);
  if (text === undefined) return undefined;
  try {
    const { sequence, keys } = lastPublished.parse(JSON.parse(text));
    return { sequence: BigInt(sequence), keys };
  } catch {
    // As good as lost: the time of day lies above it.
    return undefined;
  }
}

import { createHash } from "node:crypto";
import { basename } from "node:path";
import { messageOf } from "../coded-error.js";
import type { FederationRelationship } from "../config/config.js";
import { ConfigError } from "../config/config-error.js";
import { readProjectFile } from "../config/project-file.js";
import { parseSpiffeBundle, type SpiffeBundle } from "../spiffe/spiffe-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { parseX509BundlePem, requireTrustDomain } from "../spiffe/x509-bundle.js";

/** A relationship together with what `https_spiffe` begins from. */
export interface KnownRelationship extends FederationRelationship {
  /** Of the endpoint's trust domain; undefined with `https_web`. */
  readonly firstBundle: SpiffeBundle | undefined;
  /** Follows from all of it: what was learned through one relationship does not outlive it under another's name. */
  readonly key: string;
}

const MOST_BYTES = 1024 * 1024;

/**
 * The relationships with the bundles that their files hold now. Throws ConfigError `config-invalid`, `config-untrusted` or `config-unreadable`
 * where a file is missing, is not a bundle, or holds no authority to authenticate the endpoint with.
 */
export async function readFirstBundles(
  relationships: readonly FederationRelationship[],
): Promise<readonly KnownRelationship[]> {
  return await Promise.all(relationships.map(readFirstBundle));
}

async function readFirstBundle(relationship: FederationRelationship): Promise<KnownRelationship> {
  const { trustDomain, url, spiffe } = relationship;
  if (spiffe === undefined) return { ...relationship, firstBundle: undefined, key: keyOf([url, "https_web"]) };
  const { endpointId, bundleFile } = spiffe;
  const wrong = (message: string) =>
    new ConfigError("config-invalid", [
      {
        ...{ file: basename(bundleFile), line: 0, column: 0, path: "" },
        message: `first bundle of federation.trustDomains.${trustDomain}: ${message}`,
      },
    ]);
  const read = await readProjectFile(bundleFile, basename(bundleFile), MOST_BYTES);
  if (read === undefined) throw wrong(`there is no file ${bundleFile}`);
  try {
    const firstBundle = parseBundleFile(read.text, endpointId.trustDomain);
    if (firstBundle.x509Authorities.length > 0) {
      return { ...relationship, firstBundle, key: keyOf([url, "https_spiffe", endpointId.toString(), read.digest]) };
    }
  } catch (thrown) {
    throw wrong(messageOf(thrown));
  }
  throw wrong("it holds no X.509 authority");
}

/** A bundle as people keep it in files: SPIFFE (JSON) or PEM. Throws BundleError. */
export function parseBundleFile(text: string, trustDomain: TrustDomain): SpiffeBundle {
  const bundle = /^\s*\{/.test(text)
    ? parseSpiffeBundle(text)
    : { x509Authorities: parseX509BundlePem(text), jwtKeys: [], sequence: undefined, refreshHintSeconds: undefined };
  requireTrustDomain(bundle.x509Authorities, trustDomain);
  return bundle;
}

function keyOf(parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}

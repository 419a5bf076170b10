import { resolve } from "node:path";
import { SpiffeId, type TrustDomain } from "../spiffe/spiffe-id.js";
import type { EgressTarget, InjectedHeader, SecretSourceConfig } from "./config.js";
import { egressIdentityName } from "./cross-checks.js";
import type { EgressEntry, SecretEntry } from "./egress-schema.js";
import { partsOfValue, secretsIn } from "./egress-values.js";

type Written<Entry> = Readonly<Record<string, Entry>> | undefined;

export function egressOf(
  written: Written<EgressEntry>,
  trustDomain: TrustDomain,
  projectDirectory: string,
): readonly EgressTarget[] {
  return Object.entries(written ?? {}).map(([name, entry]) => {
    const url = new URL(entry.url);
    const scheme = url.protocol === "http:" ? "http" : "https";
    return {
      name,
      id: SpiffeId.of(trustDomain, egressIdentityName(name)),
      scheme,
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port === "" ? (scheme === "http" ? 80 : 443) : Number(url.port),
      basePath: url.pathname === "/" ? "" : url.pathname,
      headers: headersOf(entry),
      ca: entry.ca === undefined ? undefined : resolve(projectDirectory, entry.ca),
      private: entry.private ?? false,
      listenPort: entry.listen,
      ...(entry.connect === true && { connect: true }),
    };
  });
}

function headersOf({ header = {} }: EgressEntry): readonly InjectedHeader[] {
  return Object.entries(header).map(([name, value]) => ({ name, value: partsOfValue(value) }));
}

/** Every secret that a header names, with where it is: the keychain, if nothing else is said. */
export function secretsOf(
  { egress = {}, secrets = {} }: { readonly egress?: Written<EgressEntry>; readonly secrets?: Written<SecretEntry> },
  projectDirectory: string,
): Readonly<Record<string, SecretSourceConfig>> {
  const named = Object.values(egress).flatMap((entry) => headersOf(entry).flatMap(secretsIn));
  return Object.fromEntries(
    [...new Set(named)].sort().map((name) => {
      const entry = Object.hasOwn(secrets, name) ? secrets[name] : undefined;
      return [name, sourceOf(entry, projectDirectory)];
    }),
  );
}

function sourceOf(entry: SecretEntry | undefined, projectDirectory: string): SecretSourceConfig {
  if (entry?.command !== undefined) return { kind: "command", argv: entry.command };
  if (entry?.file === undefined || entry.key === undefined) return { kind: "keychain" };
  return { kind: "file", path: resolve(projectDirectory, entry.file), key: entry.key };
}

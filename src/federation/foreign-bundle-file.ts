import { createHash } from "node:crypto";
import { z } from "zod";
import { parseSpiffeBundle, serialiseSpiffeBundle } from "../spiffe/spiffe-bundle.js";
import { TrustDomain } from "../spiffe/spiffe-id.js";
import { parseStrictJson } from "../spiffe/strict-json.js";
import { requireTrustDomain } from "../spiffe/x509-bundle.js";
import type { ForeignBundle } from "./foreign-bundles.js";

/** How a bundle lies in `.agentid/bundles/`. The document is text in it, so that no JSON reader takes digits from its sequence. */
const storedBundle = z.strictObject({
  trustDomain: z.string(),
  source: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("command") }),
    z.strictObject({ kind: z.literal("endpoint"), relationship: z.string() }),
  ]),
  receivedAt: z.iso.datetime(),
  document: z.string(),
});

/** Throws SyntaxError, ZodError, BundleError, SpiffeIdError. */
export function readStoredBundle(text: string): ForeignBundle {
  const { source, receivedAt, ...stored } = storedBundle.parse(parseStrictJson(text));
  const trustDomain = TrustDomain.parse(stored.trustDomain);
  const bundle = parseSpiffeBundle(stored.document);
  requireTrustDomain(bundle.x509Authorities, trustDomain);
  return { trustDomain, bundle, source, receivedAt: new Date(receivedAt) };
}

export function writtenBundle({ trustDomain, bundle, source, receivedAt }: ForeignBundle): string {
  const document = serialiseSpiffeBundle(bundle);
  const stored: z.infer<typeof storedBundle> = {
    trustDomain: trustDomain.name,
    source,
    receivedAt: receivedAt.toISOString(),
    document,
  };
  return `${JSON.stringify(stored, undefined, 2)}\n`;
}

/** A trust domain's name may be longer than a file's may be, which holds 255 bytes with what is added while it is written. */
const LONGEST_PLAIN_NAME = 200;

/** `other.local.json`. */
export function fileNameOf(trustDomain: TrustDomain): string {
  const { name } = trustDomain;
  const stem = name.length <= LONGEST_PLAIN_NAME ? name : createHash("sha256").update(name).digest("hex");
  return `${stem}.json`;
}

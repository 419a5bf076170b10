import type { X509Certificate } from "node:crypto";
import { contentOf, element, encode, readElements, TAG } from "./der.js";
import { readCertificate } from "./known-certificates.js";
import { SpiffeId } from "./spiffe-id.js";

/*
 * The agents that launched a sub-agent, in its X.509-SVID: one `description` (X.520 §6.5.1) each in the subject, nearest first. SPIFFE gives the subject
 * no meaning, so others read past it; who verifies for this trust domain asks what each of them may do.
 */

const DESCRIPTION = Buffer.from("060355040d", "hex");

const NOBODY = encode(element(TAG.sequence));

/** The subject of a certificate for what was launched by `launchedBy`: empty where nobody launched it. */
export function launchChainSubject(launchedBy: readonly string[]): Buffer {
  if (launchedBy.length === 0) return NOBODY;
  const names = launchedBy.map((id) =>
    element(TAG.set, element(TAG.sequence, DESCRIPTION, element(TAG.utf8String, Buffer.from(id, "latin1")))),
  );
  return encode(element(TAG.sequence, ...names));
}

/** The SPIFFE IDs of the agents that launched the holder of `certificate` (DER, or what is parsed already), nearest first. What else a subject says is somebody else's. Throws X509SvidError. */
export function launchChainOf(certificate: Buffer | X509Certificate): readonly string[] {
  const { subject } = readCertificate(certificate);
  return readElements(contentOf(subject, TAG.sequence)).flatMap((name) =>
    readElements(name.content).flatMap((attribute) => {
      const [type, value] = readElements(attribute.content);
      if (type === undefined || value === undefined || !type.encoding.equals(DESCRIPTION)) return [];
      const text = value.content.toString("latin1");
      return text.startsWith("spiffe://") ? [SpiffeId.parse(text).toString()] : [];
    }),
  );
}

import { createPrivateKey } from "node:crypto";
import { verifyPath } from "../spiffe/certificate-path.js";
import { contentOf, readElements, TAG } from "../spiffe/der.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { parseX509Bundle } from "../spiffe/x509-bundle.js";
import { parseCertificate } from "../spiffe/x509-certificate.js";
import { SpiffeWorkloadAPIService as Api, type X509SVID } from "../workload-api/generated/workload.js";
import { chainProblem } from "./chain.js";
import { type Check, problemsOf, skip, whyNot } from "./check.js";
import type { Context } from "./context.js";
import { described } from "./probe.js";

const MAX_HINT_BYTES = 1024;
/** How often an order is looked at. */
const ORDER_SAMPLES = 6;

export const x509Checks: readonly Check[] = [
  {
    id: "XR-1",
    level: "M",
    sentence: "svids has at least one element",
    source: "WA §5.2.1",
    async run({ control }) {
      if (!control.ok) return [`FetchX509SVID answers ${described(control)}`];
      return control.message.svids.length > 0 ? [] : ["svids is empty"];
    },
  },
  {
    id: "XR-2",
    level: "M",
    sentence: "spiffe_id, x509_svid, x509_svid_key and bundle are non-empty in every element",
    source: "WA §5.2.1",
    run: async (context) =>
      context.svids().flatMap((svid) => {
        const fields = {
          spiffe_id: svid.spiffeId,
          x509_svid: svid.x509Svid,
          x509_svid_key: svid.x509SvidKey,
          bundle: svid.bundle,
        };
        return problemsOf(Object.entries(fields), ([field, value]) =>
          value.length > 0 ? undefined : `${field} of ${svid.spiffeId || "an element"} is empty`,
        );
      }),
  },
  {
    id: "XR-3",
    level: "M",
    sentence: "x509_svid is DER certificates concatenated, leaf first, not PEM",
    source: "proto; spiffe#401",
    run: async (context) => problemsOf(nonEmpty(context, "x509Svid"), chainProblem),
  },
  {
    id: "XR-4",
    level: "M",
    sentence: "x509_svid_key is unencrypted PKCS#8 DER and matches the leaf's public key",
    source: "proto; go-spiffe",
    run: async (context) => {
      const read = context.readSvids();
      return problemsOf(nonEmpty(context, "x509SvidKey"), (svid) => {
        const leaf = read.find((one) => one.svid === svid)?.leaf;
        const key = privateKeyOf(svid.x509SvidKey);
        if (key === undefined) return `the key of ${svid.spiffeId} is not PKCS#8 DER`;
        if (leaf === undefined || leaf.x509.checkPrivateKey(key)) return undefined;
        return `the key of ${svid.spiffeId} is not its certificate's`;
      });
    },
  },
  {
    id: "XR-5",
    level: "M",
    sentence: "bundle is DER roots concatenated; the chain verifies to it by RFC 5280",
    source: "proto; XS §5.1",
    run: async (context) => {
      const now = context.options.clock.now();
      const withBundle = context.readSvids().filter(({ svid }) => svid.bundle.length > 0);
      if (withBundle.length === 0) skip("bundle is empty: XR-2");
      return problemsOf(withBundle, ({ svid, chain, leaf }) => {
        const why = whyNot(() => {
          const roots = parseX509Bundle(svid.bundle).map((der) => parseCertificate(der));
          verifyPath(leaf, chain.slice(1), roots, now);
        });
        return why && `${svid.spiffeId}: ${why}`;
      });
    },
  },
  {
    id: "XR-6",
    level: "M",
    sentence: "The URI SAN of the leaf equals spiffe_id",
    source: "XS §2",
    run: async (context) =>
      problemsOf(context.readSvids(), ({ svid, leaf }) =>
        leaf.uris.includes(svid.spiffeId)
          ? undefined
          : `the certificate of ${svid.spiffeId} says ${leaf.uris.join(", ") || "no URI"}`,
      ),
  },
  {
    id: "XR-7",
    level: "M",
    sentence: "Non-empty hints are unique in a response and at most 1024 bytes",
    source: "WA §5.2.1, §8",
    run: async (context) => {
      const hints = context.svids().map(({ hint }) => hint);
      return problemsOf(new Set(hints.filter((hint) => hint !== "")), (hint) => {
        if (hints.indexOf(hint) !== hints.lastIndexOf(hint)) return `the hint ${JSON.stringify(hint)} occurs twice`;
        return Buffer.byteLength(hint) > MAX_HINT_BYTES ? "a hint is longer than 1024 bytes" : undefined;
      });
    },
  },
  {
    id: "XR-8",
    level: "M",
    sentence: "Element 0 is the default identity, and the order is the same from message to message",
    source: "WA §8",
    run: sameOrder,
  },
  {
    id: "XR-9",
    level: "M",
    sentence: "federated_bundles is keyed by the SPIFFE ID of the trust domain, spiffe://td",
    source: "proto",
    run: async (context) => problemsOf(federatedKeys(context), keyProblem),
  },
  {
    id: "XR-10",
    level: "M",
    sentence: "federated_bundles excludes the own trust domain and is never merged into bundle",
    source: "WA §4.6, FD §7.3",
    run: async (context) => {
      const keys = federatedKeys(context);
      const own = ownTrustDomains(context);
      const foreign = new Set(Object.values(context.federatedBundles()).flatMap(certificatesOf));
      return [
        ...problemsOf(keys, (key) =>
          own.includes(key.replace(/^spiffe:\/\//, "")) ? `${key} is the own trust domain` : undefined,
        ),
        ...problemsOf(context.svids(), ({ spiffeId, bundle }) =>
          certificatesOf(bundle).some((root) => foreign.has(root))
            ? `the bundle of ${spiffeId} holds an authority of another trust domain`
            : undefined,
        ),
      ];
    },
  },
  {
    id: "XR-11",
    level: "M",
    sentence: "FetchX509Bundles holds the own trust domain, spiffe://td, and the federated ones",
    source: "WA §5.2.2",
    run: async (context) => {
      const answer = await context.probe.ask(Api.fetchX509Bundles, {});
      if (!answer.ok) return [`FetchX509Bundles answers ${described(answer)}`];
      const { bundles } = answer.message;
      const own = ownTrustDomains(context).map((name) => `spiffe://${name}`);
      const wanted = new Set([...own, ...Object.keys(context.federatedBundles()).map((key) => idOfTrustDomain(key))]);
      return problemsOf(wanted, (key) => {
        const bundle = bundles[key];
        if (bundle === undefined) return `there is no ${key}, but ${Object.keys(bundles).join(", ") || "nothing"}`;
        const why = whyNot(() => parseX509Bundle(bundle));
        if (why !== undefined) return `${key}: ${why}`;
        return own.includes(key) && bundle.length === 0 ? `the bundle of ${key} is empty` : undefined;
      });
    },
  },
  {
    id: "XR-13",
    level: "M",
    sentence: "Each crl element is a DER CRL",
    source: "proto",
    run: async (context) => {
      const lists = context.revocationLists();
      if (lists.length === 0) skip("crl is empty, as it may be");
      return problemsOf(lists, (list) => {
        const why = whyNot(() => {
          const parts = readElements(contentOf(list, TAG.sequence)).map(({ tag }) => tag);
          const expected = [TAG.sequence, TAG.sequence, TAG.bitString];
          if (parts.length !== 3 || parts.some((tag, index) => tag !== expected[index])) {
            throw new Error("it is not a CertificateList");
          }
        });
        return why && `a crl element cannot be read: ${why}`;
      });
    },
  },
  {
    id: "XR-14",
    level: "S",
    sentence: "Unknown fields in a request are ignored",
    source: "proto",
    async run({ probe, control }) {
      if (!control.ok) skip(`FetchX509SVID answers ${described(control)}`);
      // Field 15, varint 1; field 100, three bytes.
      const body = Buffer.from("7801a20603616263", "hex");
      const answer = await probe.ask(Api.fetchX509Svid, {}, { body });
      return answer.ok ? [] : [`FetchX509SVID with unknown fields answers ${described(answer)}`];
    },
  },
];

/** The order of several identities in streams of their own, and in the message after a rotation if there is a hook for one. */
async function sameOrder(context: Context): Promise<readonly string[]> {
  const expected = context.svids().map(({ spiffeId }) => spiffeId);
  if (expected.length < 2) skip("this process has one identity only");
  const orders: (readonly string[])[] = [];
  for (let sample = 0; sample < ORDER_SAMPLES; sample++) {
    const answer = await context.probe.ask(Api.fetchX509Svid, {});
    if (answer.ok) orders.push(answer.message.svids.map(({ spiffeId }) => spiffeId));
  }
  const rotation = await context.rotationIfSeen();
  if (rotation !== undefined) orders.push(rotation.after.svids.map(({ spiffeId }) => spiffeId));
  return problemsOf(orders, (order) => {
    const common = expected.filter((id) => order.includes(id));
    const found = order.filter((id) => expected.includes(id));
    return common.join() === found.join() ? undefined : `first ${common.join(", ")}; then ${found.join(", ")}`;
  }).slice(0, 1);
}

function nonEmpty(context: Context, field: "x509Svid" | "x509SvidKey"): readonly X509SVID[] {
  const svids = context.svids().filter((svid) => svid[field].length > 0);
  return svids.length > 0 ? svids : skip("the field is empty: XR-2");
}

function privateKeyOf(der: Buffer) {
  try {
    return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  } catch {
    return undefined;
  }
}

/** At least one. */
function federatedKeys(context: Context): readonly string[] {
  const keys = Object.keys(context.federatedBundles());
  return keys.length > 0 ? keys : skip("there is no federated trust domain");
}

/** What is wrong with the key of a bundle map: it is the SPIFFE ID of a trust domain. */
export function keyProblem(key: string): string | undefined {
  const why = whyNot(() => SpiffeId.parse(key));
  if (why !== undefined) return why;
  return SpiffeId.parse(key).path === "" ? undefined : `${key} names a workload`;
}

/** Names of the trust domains of our SVIDs. */
export function ownTrustDomains(context: Context): readonly string[] {
  const names = context.svids().map(({ spiffeId }) => /^spiffe:\/\/([^/]+)/.exec(spiffeId)?.[1] ?? "");
  const found = [...new Set(names.filter((name) => name !== ""))];
  return found.length > 0 ? found : skip("no SPIFFE ID can be read");
}

/** Which trust domain a key means, whatever its form: the form is another check's matter. */
function idOfTrustDomain(key: string): string {
  return `spiffe://${key.replace(/^spiffe:\/\//, "")}`;
}

function certificatesOf(bundle: Buffer): readonly string[] {
  try {
    return parseX509Bundle(bundle).map((der) => der.toString("hex"));
  } catch {
    return [];
  }
}

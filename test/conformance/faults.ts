import { status } from "@grpc/grpc-js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import {
  basicConstraints,
  extendedKeyUsage,
  HOUR,
  KeyUsageFlags,
  keyUsage,
  NOW,
  SERVER_AUTH,
  uris,
} from "../spiffe/test-certificates.js";
import { type Faults, FEDERATED, FIRST, TRUST_DOMAIN } from "./behaviour.js";
import {
  anyKey,
  authorityUsage,
  bareKeys,
  eachKey,
  eachOf,
  eachSvid,
  leafWith,
  lenient,
  other,
  pem,
  pick,
  readsAs,
  refuse,
  tokenWith,
  twice,
  withRefusal,
} from "./fault-parts.js";

let calls = 0;

/** One mistake each, and the checks that must notice it: these and no others. */
export const faults: readonly (readonly [string, Faults, readonly string[]])[] = [
  ["looks at no header", { acceptsHeader: () => true }, ["EP-4", "EP-5"]],
  ["takes any value of the header", { acceptsHeader: (values) => values.length > 0 }, ["EP-5"]],
  [
    "takes a repeated header",
    { acceptsHeader: (values) => values.length > 0 && /^true/.test(String(values[0])) },
    ["EP-5"],
  ],
  ["refuses a missing header with Unauthenticated", withRefusal({ header: status.UNAUTHENTICATED }), ["EP-4", "EP-5"]],
  ["wants the header for health and reflection too", { needsHeader: () => true }, ["EP-6"]],
  ["offers no reflection", { reflected: undefined }, ["EP-7"]],
  ["has a method of its own in the service", { reflected: ["FetchX509SVID", "FetchSecrets"] }, ["EP-8"]],
  ["answers Internal to an unknown method", { unknownMethod: status.INTERNAL }, ["EP-11"]],

  ["wants a credential", { x509: () => refuse(status.UNAUTHENTICATED) }, ["EP-3", "XR-1"]],
  ["takes no unknown fields", { takesUnknownFields: false }, ["XR-14"]],
  ["gives no SVID", { x509: (message) => ({ ...message, svids: [] }) }, ["XR-1"]],
  ["leaves bundle empty", eachSvid(() => ({ bundle: Buffer.alloc(0) })), ["XR-2"]],
  ["leaves the key empty", eachSvid(() => ({ x509SvidKey: Buffer.alloc(0) })), ["XR-2"]],
  ["sends PEM", eachSvid(({ x509Svid }) => ({ x509Svid: pem(x509Svid) })), ["XR-3"]],
  [
    "sends the authority first",
    {
      x509: (message, { authority }) =>
        eachOf(message, ({ x509Svid }) => ({ x509Svid: Buffer.concat([authority.der, x509Svid]) })),
    },
    ["XR-3"],
  ],
  ["sends the key of another", eachSvid(() => ({ x509SvidKey: anyKey("pkcs8") })), ["XR-4"]],
  ["sends the key as SEC1", eachSvid(() => ({ x509SvidKey: anyKey("sec1") })), ["XR-4"]],
  [
    "sends the bundle of an authority that has not signed",
    { x509: (message, { stranger }) => eachOf(message, () => ({ bundle: stranger.der })) },
    ["XR-5"],
  ],
  ["names another identity than the certificate", { leaf: (id) => leafWith({ id: `${id}/2` })(`${id}/2`) }, ["XR-6"]],
  ["gives one hint twice", eachSvid(() => ({ hint: "same" })), ["XR-7"]],
  [
    "gives a hint of 1025 bytes",
    eachSvid(({ spiffeId }) => ({ hint: spiffeId === FIRST ? "h".repeat(1025) : "" })),
    ["XR-7"],
  ],
  [
    "changes the order from message to message",
    { x509: (message) => (calls++ % 2 === 0 ? message : { ...message, svids: [...message.svids].reverse() }) },
    ["XR-8"],
  ],
  [
    "keys federated bundles by bare names",
    { x509: (message, { other }) => ({ ...message, federatedBundles: { "partner.test": other.der } }) },
    ["XR-9"],
  ],
  [
    "puts its own bundle among the federated ones",
    {
      x509: (message, { authority }) => ({
        ...message,
        federatedBundles: { ...message.federatedBundles, [TRUST_DOMAIN]: authority.der },
      }),
    },
    ["XR-10"],
  ],
  [
    "merges federated authorities into its own bundle",
    { x509: (message, { other }) => eachOf(message, ({ bundle }) => ({ bundle: Buffer.concat([bundle, other.der]) })) },
    ["XR-10"],
  ],
  [
    "leaves itself out of the bundles",
    { x509Bundles: ({ bundles }) => ({ crl: [], bundles: pick(bundles, FEDERATED) }) },
    ["XR-11"],
  ],
  [
    "leaves the federated ones out of the bundles",
    { x509Bundles: ({ bundles }) => ({ crl: [], bundles: pick(bundles, TRUST_DOMAIN) }) },
    ["XR-11"],
  ],
  [
    "keys bundles by bare names",
    { x509Bundles: ({ bundles }) => ({ crl: [], bundles: bareKeys(bundles) }) },
    ["XR-11"],
  ],
  ["sends a CRL as text", { x509: (message) => ({ ...message, crl: [Buffer.from("none")] }) }, ["XR-13"]],

  ["puts two URIs into a certificate", { leaf: (id) => leafWith({ names: uris(id, `${id}/2`) })(id) }, ["XS-1"]],
  ["puts no URI into a certificate", { leaf: leafWith({ names: null }) }, ["XR-6", "XS-1"]],
  ["issues for the trust domain itself", { leaf: leafWith({ names: uris(TRUST_DOMAIN) }) }, ["XR-6", "XS-2"]],
  ["has an empty subject and a SAN that is not critical", { leaf: () => ({ name: "" }) }, ["XS-3"]],
  ["leaves BasicConstraints out", { leaf: leafWith({ constraints: null }) }, ["XS-4"]],
  ["issues authorities", { leaf: leafWith({ constraints: basicConstraints(true) }) }, ["XS-4"]],
  ["leaves KeyUsage out", { leaf: leafWith({ usage: null }) }, ["XS-5"]],
  [
    "has a KeyUsage that is not critical",
    { leaf: leafWith({ usage: keyUsage(KeyUsageFlags.digitalSignature, false) }) },
    ["XS-5"],
  ],
  [
    "lets leaves sign",
    { leaf: leafWith({ usage: keyUsage(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyCertSign) }) },
    ["XS-5"],
  ],
  ["leaves ExtendedKeyUsage out", { leaf: leafWith({ extendedUsage: null }) }, ["XS-6"]],
  ["issues for servers only", { leaf: leafWith({ extendedUsage: extendedKeyUsage(SERVER_AUTH) }) }, ["XS-6"]],
  [
    "signs with an authority that names another trust domain",
    { authority: () => ({ extensions: [basicConstraints(true), authorityUsage, uris("spiffe://other.test")] }) },
    ["XS-7"],
  ],
  [
    "signs with an authority that is none",
    { authority: () => ({ extensions: [basicConstraints(false), authorityUsage, uris(TRUST_DOMAIN)] }) },
    ["XR-5", "XS-7"],
  ],
  ["counts its serials", { leaf: () => ({ serialNumber: "02a4" }) }, ["XS-12"]],
  [
    "issues certificates for later",
    { leaf: () => ({ notBefore: Date.now() - NOW.getTime() + HOUR / 2 }) },
    ["XR-5", "XS-12"],
  ],

  ["issues tokens for nobody", withRefusal({ audience: status.UNKNOWN }), ["JR-1"]],
  [
    "issues for the first audience only",
    { tokenClaims: (claims) => ({ ...claims, aud: [claims.aud].flat().slice(0, 1) }) },
    ["JR-2"],
  ],
  ["gives a token for the default identity only", { jwt: ({ svids }) => ({ svids: svids.slice(0, 1) }) }, ["JR-3"]],
  [
    "denies with NotFound",
    withRefusal({ entitlement: status.NOT_FOUND }),
    ["JR-4", "WR-2", "ID-1", "ID-2", "ID-3", "ID-4", "ID-5", "ID-6"],
  ],
  [
    "names another identity than sub",
    { jwt: ({ svids }) => ({ svids: svids.map((one) => ({ ...one, spiffeId: other(one.spiffeId) })) }) },
    ["JR-4", "JR-5"],
  ],
  [
    "pads its tokens",
    { jwt: ({ svids }) => ({ svids: svids.map((one) => ({ ...one, svid: `${one.svid}==` })) }) },
    ["JR-6"],
  ],
  [
    "leaves kid out of the keys",
    { jwtBundles: (sets) => eachKey(sets, ({ kid: _, ...jwk }) => jwk) },
    ["JR-8", "JS-7"],
  ],
  [
    "leaves use out of the keys, as SPIRE does",
    { jwtBundles: (sets) => eachKey(sets, ({ use: _, ...jwk }) => jwk) },
    [],
  ],
  [
    "publishes keys of another use",
    { jwtBundles: (sets) => eachKey(sets, (jwk) => ({ ...jwk, use: "x509-svid" })) },
    ["JR-7", "JR-8"],
  ],
  ["publishes a private key", { jwtBundles: (sets) => eachKey(sets, (jwk) => ({ ...jwk, d: "AAAA" })) }, ["JR-7"]],
  ["keys JWT bundles by bare names", { jwtBundles: bareKeys }, ["JR-7"]],
  [
    "publishes keys of an unknown type",
    { jwtBundles: (sets) => eachKey(sets, (jwk) => ({ ...jwk, kty: "XX" })) },
    ["JR-8"],
  ],
  [
    "puts a sequence into JWT bundles",
    {
      jwtBundles: (sets) =>
        Object.fromEntries(Object.entries(sets).map(([key, set]) => [key, { ...set, spiffe_sequence: 1 }])),
    },
    ["JR-9"],
  ],
  ["answers Unauthenticated to empty arguments", withRefusal({ arguments: status.UNAUTHENTICATED }), ["JR-10"]],
  ["refuses tokens with PermissionDenied", withRefusal({ token: status.PERMISSION_DENIED }), ["JR-11"]],
  ["accepts alg none", lenient(({ alg }) => alg === "none"), ["JR-11"]],
  ["accepts alg HS256", lenient(({ alg }) => alg === "HS256"), ["JR-11"]],
  ["accepts the key that the token brings", lenient(({ jwk }) => jwk !== undefined), ["JR-11"]],
  ["accepts tokens for another audience", lenient((_, audience) => audience === "conformance-audience2"), ["JR-11"]],
  ["accepts WIT-SVIDs as tokens", lenient(({ typ }) => typ === "wit+jwt"), ["JR-11"]],
  [
    "answers without claims",
    { validated: (message) => ({ ...message, claims: { sub: message.spiffeId } }) },
    ["JR-12"],
  ],
  [
    "writes aud as a string",
    { validated: (message) => ({ ...message, claims: { ...message.claims, aud: "conformance-audience" } }) },
    ["JR-13"],
  ],
  ["signs with EdDSA by its header", tokenWith({ alg: "EdDSA" }), ["JS-1"]],
  ["puts jku into the header", tokenWith({ jku: "https://conf.test" }), ["JS-2"]],
  ["writes typ at+jwt", tokenWith({ typ: "at+jwt" }), ["JS-3"]],
  ["writes no kid", tokenWith({ kid: undefined }), ["JS-4"]],
  ["writes no exp", { tokenClaims: ({ exp: _, ...claims }) => claims }, ["JR-12", "JS-5"]],

  ["serves half of the WIT profile", { fails: { FetchWITBundles: status.UNIMPLEMENTED } }, ["WR-1"]],
  [
    "serves no WIT profile",
    { fails: { FetchWITSVID: status.UNIMPLEMENTED, FetchWITBundles: status.UNIMPLEMENTED } },
    [],
  ],
  ["gives a WIT-SVID for the default identity only", { wit: ({ svids }) => ({ svids: svids.slice(0, 1) }) }, ["WR-2"]],
  [
    "gives the WIT key of another",
    {
      wit: ({ svids }) => ({
        svids: svids.map((one, index) => ({ ...one, witSvidKey: svids[1 - index]?.witSvidKey ?? one.witSvidKey })),
      }),
    },
    ["WR-3"],
  ],
  ["gives two WIT keys one kid", { witBundles: ({ bundles }) => ({ bundles: twice(bundles) }) }, ["WR-4"]],
  [
    "has no JWT profile",
    {
      fails: {
        FetchJWTSVID: status.UNIMPLEMENTED,
        FetchJWTBundles: status.UNIMPLEMENTED,
        ValidateJWTSVID: status.UNIMPLEMENTED,
      },
    },
    ["WR-5"],
  ],

  ["reads IDs with a trailing slash", readsAs((text) => text.replace(/\/$/, "")), ["ID-5"]],
  ["reads trust domains in upper case", readsAs((text) => text.toLowerCase()), ["ID-2"]],
  ["drops query and fragment", readsAs((text) => text.replace(/[?#].*/, "")), ["ID-3"]],
  ["resolves dots in paths", readsAs((text) => text.replace("/./", "/").replace(/\/[^/]+\/\.\.$/, "")), ["ID-4"]],
  [
    "reads IDs up to 1024 bytes",
    { parseId: (text) => (text.length > 1024 ? SpiffeId.parse("") : SpiffeId.parse(text)) },
    ["ID-6"],
  ],
  [
    "answers NotFound to what is no SPIFFE ID",
    withRefusal({ id: status.NOT_FOUND }),
    ["JR-4", "WR-2", "ID-1", "ID-2", "ID-3", "ID-4", "ID-5"],
  ],

  [
    "sends a part of the state after the first message",
    { followUp: ({ svids, ...rest }) => ({ svids: svids.slice(0, 1), ...rest }) },
    ["ST-2"],
  ],
  ["closes bundle streams", { closesBundleStreams: true }, ["ST-10"]],
  ["sends unchanged bundles again", { repeatsBundles: true }, ["ST-11"]],
  ["does not release cancelled streams", { streamsInItsLife: 250 }, ["ST-8"]],
  [
    "denies with NotFound whom it knows",
    withRefusal({ identity: status.NOT_FOUND }),
    ["EP-10", "ST-6", "ST-7", "XR-12"],
  ],
  ["validates for identities only", withRefusal({ validateWithoutIdentity: status.PERMISSION_DENIED }), ["JR-14"]],
];

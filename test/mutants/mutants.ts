import { attestationMutants } from "./attestation-mutants.ts";
import { authorityMutants } from "./authority-mutants.ts";
import { authzenMutants } from "./authzen-mutants.ts";
import { badAnswerMutants } from "./bad-answer-mutants.ts";
import { badInputMutants } from "./bad-input-mutants.ts";
import { clientMutants } from "./client-mutants.ts";
import { clientPoolMutants } from "./client-pool-mutants.ts";
import { conditionMutants } from "./condition-mutants.ts";
import { connectMutants } from "./connect-mutants.ts";
import { durableMutants } from "./durable-mutants.ts";
import { egressMutants } from "./egress-mutants.ts";
import { engineMutants } from "./engine-mutants.ts";
import { httpListenerMutants } from "./http-listener-mutants.ts";
import { launchMutants } from "./launch-mutants.ts";
import { liarMutants } from "./liar-mutants.ts";
import { longBodyMutants } from "./long-body-mutants.ts";
import { policyMutants } from "./policy-mutants.ts";
import { protocolMutants } from "./protocol-mutants.ts";
import { relayMutants } from "./relay-mutants.ts";
import { sandboxMutants } from "./sandbox-mutants.ts";
import { spanMutants } from "./span-mutants.ts";
import { tcpMutants } from "./tcp-mutants.ts";
import { tokenMutants } from "./token-mutants.ts";

/** One check of the real code, switched off. */
export interface Mutant {
  readonly id: string;
  /** The sentence that no longer holds. */
  readonly check: string;
  readonly file: string;
  /** Stands in `file` exactly once. */
  readonly find: string;
  readonly replace: string;
  /** Test files that must notice. */
  readonly tests: readonly string[];
  /** The tests skip where bubblewrap makes no sandbox, and then prove nothing. */
  readonly needsSandbox?: boolean;
}

/** The checks that matter most. A check that moves takes its entry along: one that fits nowhere fails the run. */
export const mutants: readonly Mutant[] = [
  {
    id: "security-header",
    check: "EP-4, EP-5: an RPC without the security header is refused",
    file: "src/workload-api/security-header.ts",
    find: 'if (value === "true" && more.length === 0) return undefined;',
    replace: "if (value !== undefined) return undefined;",
    tests: ["test/workload-api/security-header.test.ts"],
  },
  {
    id: "workload-recheck",
    check: "ST-9: the caller is checked again before each answer",
    file: "src/workload-api/authorization.ts",
    find: "      caller.recheck();",
    replace: "",
    tests: ["test/workload-api/callers.test.ts", "test/liars/race.test.ts"],
  },
  {
    id: "no-identity-refused",
    check: "EP-10: a known caller without identity is refused",
    file: "src/workload-api/authorization.ts",
    find: "if (granted.length > 0) return granted;",
    replace: "return granted;",
    tests: ["test/workload-api/callers.test.ts", "test/workload-api/x509.test.ts"],
  },
  {
    id: "exec-after-connect",
    check: "D5: a process that executed another program after it was attested is refused",
    file: "src/attestation/attestor.ts",
    find: "was.execGeneration !== is.execGeneration || (program !== undefined && !program.isCurrent())",
    replace: "false",
    tests: ["test/attestation/attestor.test.ts"],
  },
  {
    id: "same-user",
    check: "D4: the user at connect time is the user who gets the answer",
    file: "src/attestation/attestor.ts",
    find: "if (was.uid !== is.uid || was.gid !== is.gid || !sameGroups)",
    replace: "if (false)",
    tests: ["test/attestation/attestor.test.ts"],
  },
  {
    id: "launch-digest",
    check: "D7: a launch becomes the identity only as the pinned executable",
    file: "src/attestation/launched-process.ts",
    find: "return (await digests.digestOf(executable)) === expected.exeSha256;",
    replace: "return true;",
    tests: ["test/attestation/launches.test.ts"],
  },
  {
    id: "launch-command-line",
    check: "D7: a launch becomes the identity only with the pinned arguments",
    file: "src/attestation/launched-process.ts",
    find: "if (!sameCommandLine(this.#handle.commandLine(), expected)) return false;",
    replace: "",
    tests: ["test/attestation/launches.test.ts"],
  },
  {
    id: "agent-may-not-administer",
    check: "D25: a descendant of an agent may not administer",
    file: "src/attestation/administrator.ts",
    find: "if (agent !== undefined) return refused(",
    replace: "if (false) return refused(",
    tests: ["test/attestation/administrator.test.ts"],
  },
  {
    id: "orphan-may-not-administer",
    check: "D25: a process that init has adopted shows no chain of parents and may not administer",
    file: "src/attestation/administrator.ts",
    find: "if (ancestor.pid === 1 || ADOPTERS.has(ancestor.name) || isAdopter(ancestor.pid, ancestor.startTime)) {",
    replace: "if (false) {",
    tests: ["test/attestation/administrator.test.ts"],
  },
  {
    id: "shared-connection",
    check: "a connection that several processes hold is nobody's",
    file: "src/platform/linux-tcp-owner.ts",
    find: "if (second !== undefined) return",
    replace: "if (false) return",
    tests: ["test/platform/linux-process.test.ts", "test/attestation/attestor.test.ts"],
  },
  {
    id: "own-trust-domain",
    check: "XS-10, D12: no bundle of ours speaks for another trust domain",
    file: "src/identity/bundles.ts",
    find: "x509Bundle(trustDomain: TrustDomain) {\n      if (!trustDomain.equals(ours)) return undefined;",
    replace: "x509Bundle(_: TrustDomain) {",
    tests: ["test/identity/trust-domain-authority.test.ts", "test/identity/svid-keeper.test.ts"],
  },
  {
    id: "chain-signature",
    check: "XS-9: a chain with a wrong signature is refused",
    file: "src/spiffe/certificate-path.ts",
    find: "if (!hasSigned(issuer, subject)) return",
    replace: "if (false) return",
    tests: ["test/spiffe/x509-svid.test.ts"],
  },
  {
    id: "leaf-is-no-ca",
    check: "XS-9: a signing certificate does not authenticate",
    file: "src/spiffe/x509-svid.ts",
    find: "if (leaf.basicConstraints?.cA === true)",
    replace: "if (false)",
    tests: ["test/spiffe/x509-svid.test.ts"],
  },
  {
    id: "one-uri",
    check: "XS-9: a certificate with several URIs does not authenticate",
    file: "src/spiffe/x509-svid.ts",
    find: "if (another !== undefined) throw",
    replace: "if (false) throw",
    tests: ["test/spiffe/x509-svid.test.ts"],
  },
  {
    id: "jwt-audience",
    check: "JR-11: a token for another audience is refused",
    file: "src/spiffe/jwt-svid.ts",
    find: "if (!audiences.includes(audience)) {",
    replace: "if (false) {",
    tests: ["test/spiffe/jwt-svid.test.ts"],
  },
  {
    id: "gone-streams",
    check: "a stream that is gone before its answer ends nobody else's",
    file: "src/workload-api/server.ts",
    find: "  surviveGoneStreams(grpc);\n",
    replace: "",
    tests: ["test/workload-api/gone-streams.test.ts"],
  },
  {
    id: "jwt-signature",
    check: "JR-11: a token with a bad signature is refused",
    file: "src/spiffe/jwt-svid.ts",
    find: "if (keys.some((key) => isSignedBy(key, algorithm, signed, parts.signature))) return;",
    replace: "return;",
    tests: ["test/spiffe/jwt-svid.test.ts"],
  },
  {
    id: "relay-server-identity",
    check: "the relay speaks only with the service it means",
    file: "src/relay/caller-tls.ts",
    find: "if (!peer.id.equals(target.expected)) {",
    replace: "if (false) {",
    tests: ["test/relay/mutual-tls.test.ts"],
  },
  {
    id: "relay-host",
    check: "D16: a listener answers to its own names only",
    file: "src/http/host-check.ts",
    find: "if (host === undefined || !allowed.hosts.has(host.toLowerCase())) {",
    replace: "if (false) {",
    tests: ["test/relay/bad-inputs/requests.test.ts"],
  },
  {
    id: "relay-origin",
    check: "D16: a foreign Origin is refused",
    file: "src/http/host-check.ts",
    find: "if (origin !== undefined && !allowed.origins.has(origin.toLowerCase())) {",
    replace: "if (false) {",
    tests: ["test/relay/bad-inputs/requests.test.ts"],
  },
  {
    id: "relay-asserted-identity",
    check: "what only the relay may say of a caller is removed from what the caller sends",
    file: "src/relay/headers.ts",
    find: "HOP_BY_HOP.has(name) || isAssertedByRelays(name) }",
    replace: "HOP_BY_HOP.has(name) }",
    tests: ["test/relay/streaming.test.ts"],
  },
  {
    id: "relay-dot-segments",
    check: "a path that an upstream may read differently is refused",
    file: "src/relay/request-target.ts",
    find: 'if (segment === "." || segment === "..") throw',
    replace: "if (false) throw",
    tests: ["test/relay/bad-inputs/requests.test.ts", "test/relay/readings.test.ts"],
  },
  {
    id: "mcp-header-lies",
    check: "D18: an MCP header that differs from the body is refused",
    file: "src/relay/mcp-message.ts",
    find: 'if (method !== undefined && method !== message.method) throw mismatch("Mcp-Method");',
    replace: "",
    tests: ["test/relay/bad-inputs/requests.test.ts"],
  },
  {
    id: "deny-wins",
    check: "a deny rule wins over every allow",
    file: "src/policy/rules-engine.ts",
    find: "if (hits.deny !== undefined) {",
    replace: "if (hits.deny !== undefined && hits.allow() === undefined) {",
    tests: ["test/policy/decision-point.test.ts", "test/policy/properties.test.ts"],
  },
  {
    id: "condition-error-denies",
    check: "D13: an allow whose condition fails with an error does not allow",
    file: "src/policy/rule-hits.ts",
    find: 'const holds = unmet === undefined && (outcome === undefined || outcome.outcome === "true");',
    replace: 'const holds = unmet === undefined && (outcome === undefined || outcome.outcome !== "false");',
    tests: ["test/policy/decision-point.test.ts", "test/policy/properties.test.ts"],
  },
  {
    id: "audit-chain",
    check: "an entry that does not follow the one before it is reported",
    file: "src/audit/verify.ts",
    find: "if (claims.prev !== this.#head) {",
    replace: "if (false) {",
    tests: ["test/audit/chained-log.test.ts"],
  },
  {
    id: "audit-turn",
    check: "D20: an entry of a turn is in the file before whoever waits for it goes on",
    file: "src/audit/chained-log.ts",
    find: "written.push({ entry, receipt: { sequence, hash: head } });",
    replace: "entry.resolve({ sequence, hash: head });",
    tests: ["test/audit/full-disk.test.ts"],
  },
  {
    id: "withdrawn-meanwhile",
    check: "an identity that is withdrawn while its token is being recorded is not handed out",
    file: "src/workload-api/authorization.ts",
    find: "if (granted().some(({ identity }) => identity.id.equals(id))) return;",
    replace: "return;",
    tests: ["test/workload-api/jwt.test.ts"],
  },
  {
    id: "audit-content",
    check: "an entry whose content was altered is reported",
    file: "src/audit/verify.ts",
    find: "if (claims.actual !== claims.hash) this.#report",
    replace: "if (false) this.#report",
    tests: ["test/audit/chained-log.test.ts"],
  },
  {
    id: "widening-waits",
    check: "D13: a change that widens waits for the user",
    file: "src/config/reload.ts",
    find: 'if (widened && current.config.reload === "confirm")',
    replace: "if (false)",
    tests: ["test/config/reload.test.ts", "test/e2e/calls.test.ts"],
  },
  {
    id: "wit-key-of-another",
    check: "WR-3: the key handed out is the one that the token confirms",
    file: "src/identity/wit-authority.ts",
    find: "cnf: { jwk: confirmed }",
    replace: "cnf: { jwk: publicPart }",
    tests: ["test/workload-api/wit.test.ts"],
  },
  {
    id: "wit-shared-kid",
    check: "WR-4: every key of a WIT bundle has a kid of its own",
    file: "src/workload-api/wit.ts",
    find: "JSON.stringify({ keys: distinctKeys(bundle.keys) })",
    replace: "JSON.stringify({ keys: bundle.keys })",
    tests: ["test/workload-api/wit.test.ts"],
  },
  {
    id: "sds-names-of-others",
    check: "SDS: a name that does not follow for the process ends the RPC",
    file: "src/workload-api/sds/state-of-the-world.ts",
    find: "if (unknown.length > 0) d.authorization.refuseResources(who, rpc, unknown);",
    replace: "",
    tests: ["test/workload-api/sds.test.ts"],
  },
  {
    id: "sds-nack-loop",
    check: "SDS: what was accepted or refused is not sent again",
    file: "src/workload-api/sds/state-of-the-world.ts",
    find: "if (!owed && version === sent?.version) return undefined;",
    replace: "",
    tests: ["test/workload-api/sds.test.ts"],
  },
  {
    id: "sds-stale-nonce",
    check: "SDS: what is said of an answer that was overtaken is ignored",
    file: "src/workload-api/sds/state-of-the-world.ts",
    find: "if (sent !== undefined && responseNonce !== sent.nonce) return false;",
    replace: "",
    tests: ["test/workload-api/sds.test.ts"],
  },
  {
    id: "sds-merged-roots",
    check: "D12: roots of several trust domains are never one plain list",
    file: "src/workload-api/sds/catalogue.ts",
    find: "if (one === undefined || more.length > 0 || name === ALL_BUNDLES) {",
    replace: "if (one === undefined) {",
    tests: ["test/workload-api/sds.test.ts"],
  },
  {
    id: "sds-delta-lost",
    check: "SDS delta: what the caller lost is taken away",
    file: "src/workload-api/sds/delta.ts",
    find: "const removedResources = [...has.keys()].filter((name) => !stillThere.has(name));",
    replace: "const removedResources: string[] = [];",
    tests: ["test/workload-api/sds-delta.test.ts"],
  },
  {
    id: "federation-own-bundle",
    check: "D12: nobody else says what our own trust domain consists of",
    file: "src/federation/foreign-bundles.ts",
    find: "if (trustDomain.equals(ours)) throw ownBundle(ours);",
    replace: "",
    tests: ["test/federation/foreign-bundles.test.ts"],
  },
  {
    id: "federates-with",
    check: "an identity that federates with some trust domains only has the bundles of those alone",
    file: "src/identity/federates-with.ts",
    find: "names.includes(trustDomain.name)",
    replace: "names.length >= 0",
    tests: ["test/workload-api/x509.test.ts", "test/workload-api/jwt.test.ts", "test/workload-api/sds.test.ts"],
  },
  {
    id: "federates-with-relay",
    check: "a service's leg lets in callers of the trust domains that its identity federates with",
    file: "src/relay/inbound.ts",
    find: "const parts: RelayParts = { ...relay, bundles };",
    replace: "const parts: RelayParts = bundles === undefined ? { ...relay, bundles } : relay;",
    tests: ["test/relay/mutual-tls.test.ts"],
  },
  {
    id: "federates-with-widening",
    check: "D13: another trust domain for an identity waits",
    file: "src/config/compare-identities.ts",
    find: "const widens = before !== undefined && (after === undefined",
    replace: "const widens = before !== undefined && (after === null",
    tests: ["test/config/compare.test.ts"],
  },
  {
    id: "federation-never-merged",
    check: "XR-10, FD-7: a trust domain is verified by its own bundle only",
    file: "src/federation/trust-bundles.ts",
    find: "trustDomain.equals(ours) ? own.x509Bundle(trustDomain) :",
    replace:
      "trustDomain.equals(ours) ? { trustDomain, authorities: [...(own.x509Bundle(trustDomain)?.authorities ?? []), ...foreign.all.flatMap(({ bundle }) => bundle.x509Authorities)] } :",
    tests: ["test/federation/foreign-bundles.test.ts"],
  },
  {
    id: "federation-endpoint-id",
    check: "FD-4: the endpoint has exactly the SPIFFE ID of the relationship",
    file: "src/federation/bundle-client.ts",
    find: "return id.equals(endpointId) ? undefined",
    replace: "return true ? undefined",
    tests: ["test/federation/bundle-client.test.ts"],
  },
  {
    id: "federation-redirect-scheme",
    check: "FD-6: redirects lead to https only",
    file: "src/federation/bundle-client.ts",
    find: 'if (answer.protocol !== "https:" || ',
    replace: "if (",
    tests: ["test/federation/bundle-client.test.ts"],
  },
  {
    id: "federation-sequence",
    check: "TB-2: an older bundle does not replace a newer one",
    file: "src/federation/relationships.ts",
    find: "&& after < before)",
    replace: "&& false)",
    tests: ["test/federation/relationships.test.ts"],
  },
  {
    id: "federation-ends",
    check: "what a relationship taught ends with it",
    file: "src/federation/relationships.ts",
    find: 'foreign.remove(trustDomain, "its relationship is not in agentid.yaml");',
    replace: "",
    tests: ["test/federation/relationships.test.ts"],
  },
  {
    id: "federation-ciphers",
    check: "FD-2: Mozilla's intermediate cipher suites",
    file: "src/federation/server-certificate.ts",
    find: "    ciphers: MOZILLA_INTERMEDIATE,",
    replace: "",
    tests: ["test/federation/bundle-endpoint.test.ts"],
  },
  {
    id: "federation-host",
    check: "D16: a listener on loopback answers under its own names only",
    file: "src/federation/document-server.ts",
    find: "if (hosts !== undefined && !hosts.has(",
    replace: "if (false && !hosts.has(",
    tests: ["test/federation/bundle-endpoint.test.ts"],
  },
  {
    id: "federation-own-sequence",
    check: "TB-2: our own sequence is kept before it is published",
    file: "src/federation/published-bundle.ts",
    find: "last.sequence < now ? now : last.sequence + 1n",
    replace: "true ? now : last.sequence + 1n",
    tests: ["test/federation/bundle-document.test.ts"],
  },
  ...attestationMutants,
  ...authorityMutants,
  ...httpListenerMutants,
  ...launchMutants,
  ...liarMutants,
  ...authzenMutants,
  ...badAnswerMutants,
  ...badInputMutants,
  ...clientMutants,
  ...clientPoolMutants,
  ...conditionMutants,
  ...connectMutants,
  ...egressMutants,
  ...durableMutants,
  ...engineMutants,
  ...relayMutants,
  ...sandboxMutants,
  ...tokenMutants,
  ...spanMutants,
  ...tcpMutants,
  ...longBodyMutants,
  ...policyMutants,
  ...protocolMutants,
];

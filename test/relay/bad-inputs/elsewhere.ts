/**
 * Classes of bad input that no bytes at a listener show: where their attacks stand, or why there are none. With the classes of `classes.ts` and the answers of
 * `responses.ts` these are all that a relay which enforces policy has to survive.
 */
export const elsewhere: Readonly<Record<string, readonly string[] | string>> = {
  "floods of frames": ["test/relay/bad-http2.test.ts", "test/relay/grpc-lifetimes.test.ts"],
  "floods of connections and requests": ["test/relay/limits.test.ts", "test/relay/tcp-bytes.test.ts"],
  "fetches on behalf of others": [
    ...[
      "test/relay/egress-destinations.test.ts",
      "test/relay/connect.test.ts",
      "test/federation/bundle-client.test.ts",
    ],
    "test/relay/own-address.test.ts",
  ],
  tokens: ["test/spiffe/jwt-svid.test.ts", "test/identity/kept-jwt-svids.test.ts"],
  "peers and their certificates": ["test/relay/mutual-tls.test.ts", "test/relay/tcp-callers.test.ts"],
  "confused deputy": ["test/relay/callers.test.ts", "test/relay/launch-chain.test.ts", "test/relay/egress.test.ts"],
  approvals: "there are none yet: a rule that requires one denies",
  "process identity": ["test/liars/attacks.test.ts", "test/liars/race.test.ts", "test/relay/callers.test.ts"],
  "fail-open": [
    ...["test/relay/engines.test.ts", "test/relay/late-decisions.test.ts", "test/relay/record-first.test.ts"],
    "test/policy/guards.test.ts",
  ],
  "answers given again": ["test/relay/durable-mcp.test.ts", "test/relay/durable-outcomes.test.ts"],
};

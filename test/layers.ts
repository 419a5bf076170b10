/**
 * The one direction of the layers: what a folder of src/ may import besides itself and `coded-error`.
 * This table is the rule; docs/architecture.md shows it, and a test compares the two.
 */
export const MAY_KNOW: Record<string, readonly string[]> = {
  spiffe: [],
  platform: [],
  "control-api": ["spiffe"],
  // Pure, but for one file that lists folders.
  sandbox: [],
  audit: ["platform"],
  attestation: ["platform"],
  config: ["spiffe", "platform"],
  // Of http the strict JSON: what another decision point answers is read as what it asks us.
  policy: ["http", "audit", "config", "spiffe", "platform", "control-api"],
  secrets: ["config", "platform"],
  identity: ["attestation", "audit", "config", "spiffe", "platform"],
  http: ["identity", "spiffe", "platform"],
  federation: ["identity", "audit", "config", "spiffe", "platform"],
  "workload-api": ["identity", "attestation", "audit", "config", "spiffe", "platform"],
  telemetry: [],
  // Pure storage: what a key stands for is the relay's.
  durable: ["platform"],
  relay: [
    "telemetry",
    "http",
    "durable",
    "policy",
    "identity",
    "attestation",
    "audit",
    "config",
    "secrets",
    "control-api",
    "spiffe",
    "platform",
  ],
  authzen: ["http", "policy", "identity", "attestation", "audit", "config", "control-api", "spiffe", "platform"],
  // Of workload-api the generated stubs only: the SPIFFE client speaks the protocol and knows no server.
  client: ["control-api", "spiffe", "platform", "sandbox", "workload-api"],
  // Asks any Workload API as a workload does: of workload-api the generated stubs only.
  conformance: ["client", "control-api", "spiffe", "platform", "workload-api"],
  dashboard: ["client", "control-api", "platform"],
  daemon: [
    ...[
      "federation",
      "workload-api",
      "telemetry",
      "relay",
      "durable",
      "authzen",
      "http",
      "policy",
      "identity",
      "attestation",
      "audit",
      "config",
    ],
    ...["control-api", "spiffe", "platform", "sandbox", "secrets"],
  ],
  demo: ["client", "control-api", "daemon", "config", "audit", "platform", "spiffe"],
  // Thin: `daemon` for dev, up and ci; the pure parts for the offline commands.
  commands: [
    ...["client", "control-api", "dashboard", "daemon", "demo", "conformance"],
    ...["config", "policy", "audit", "spiffe", "platform"],
  ],
};

/** JSON-RPC requests of MCP that a client sends, of every revision up to 2026-07-28, exactly as written. */
export const MCP_METHODS: readonly string[] = [
  "completion/complete",
  "initialize",
  "logging/setLevel",
  "ping",
  "prompts/get",
  "prompts/list",
  "resources/list",
  "resources/read",
  "resources/subscribe",
  "resources/templates/list",
  "resources/unsubscribe",
  "server/discover",
  "subscriptions/listen",
  "tasks/cancel",
  "tasks/get",
  "tasks/list",
  "tasks/result",
  "tasks/update",
  "tools/call",
  "tools/list",
];

const KNOWN: ReadonlySet<string> = new Set(MCP_METHODS);

/** A method that a client sends as a request. */
export function isMcpRequest(method: string): boolean {
  return KNOWN.has(method);
}

/** A method that a client sends as a notification. */
export function isMcpNotification(method: string): boolean {
  return /^notifications\/[A-Za-z/_]{1,80}$/.test(method);
}

import type { Mutant } from "./mutants.ts";

const CALLS = "test/relay/tracing.test.ts";
const KINDS = "test/relay/span-kinds.test.ts";

/** Of what a collector is told, and of what the next hop is told of the trace. */
export const spanMutants: readonly Mutant[] = [
  {
    id: "span-query",
    check: "no query is in a span",
    file: "src/relay/tracing.ts",
    find: '"url.path": target?.path,',
    replace: '"url.path": target?.raw,',
    tests: [CALLS, KINDS],
  },
  {
    id: "span-arguments",
    check: "no arguments of a tool are in a span",
    file: "src/relay/tracing.ts",
    find: '"gen_ai.tool.name": tool?.name,',
    replace: '"gen_ai.tool.name": tool === undefined ? undefined : JSON.stringify(tool),',
    tests: [CALLS],
  },
  {
    id: "span-headers",
    check: "no headers of a call are in a span",
    file: "src/relay/tracing.ts",
    find: '"http.request.method": request.method,',
    replace: '"http.request.method": [request.method, ...request.rawHeaders].join(" "),',
    tests: [CALLS],
  },
  {
    id: "span-websocket-headers",
    check: "no headers of a WebSocket's handshake are in a span",
    file: "src/relay/tracing.ts",
    find: 'webSocket === undefined ? undefined : "websocket"',
    replace: 'webSocket === undefined ? undefined : request.rawHeaders.join(" ")',
    tests: [KINDS],
  },
  {
    id: "span-grpc-metadata",
    check: "no metadata of a call of gRPC is in a span",
    file: "src/relay/grpc-tracing.ts",
    find: '"rpc.system": "grpc",',
    replace: '"rpc.system": "grpc", "rpc.request.metadata": incoming.raw.join(" "),',
    tests: [KINDS],
  },
  {
    id: "span-grpc-message",
    check: "what a service says in words of an error is in no span",
    file: "src/relay/grpc-tracing.ts",
    find: '"rpc.grpc.status_code": status,',
    replace: '"rpc.grpc.status_code": status, "rpc.message": String(sentTrailers?.["grpc-message"]),',
    tests: [KINDS],
  },
  {
    id: "span-reason",
    check: "what broke a connection off is in its span without the reason",
    file: "src/relay/tracing.ts",
    find: 'return error?.split(":")[0];',
    replace: "return error;",
    tests: [KINDS],
  },
  {
    id: "span-refused-target",
    check: "a target that CONNECT may not reach is not named to the collector",
    file: "src/relay/connect-proxy.ts",
    find: '...{ request: { method: "CONNECT" }, parent: parentIn(request.rawHeaders) },',
    replace: '...{ request: { method: "CONNECT " + request.url }, parent: parentIn(request.rawHeaders) },',
    tests: [KINDS],
  },
  {
    id: "span-continued",
    check: "the next hop of a WebSocket or a call of gRPC finds one trace context, ours",
    file: "src/relay/tracing.ts",
    find: "return [...forwardableRequestHeaders(raw, TRACE_HEADERS), ...traceHeaders(span)];",
    replace: "return [...forwardableRequestHeaders(raw), ...traceHeaders(span)];",
    tests: [KINDS],
  },
  {
    id: "span-tcp-parent",
    check: "the legs of a TCP connection are in one trace",
    file: "src/relay/tcp-inbound.ts",
    find: "    exchange.parent = process?.trace;\n",
    replace: "",
    tests: [KINDS],
  },
  {
    id: "span-unsampled",
    check: "a caller that says not sampled is not collected",
    file: "src/telemetry/otlp-tracer.ts",
    find: "new ParentBasedSampler({ root: new AlwaysOnSampler() })",
    replace: "new AlwaysOnSampler()",
    tests: [CALLS, KINDS],
  },
  {
    id: "span-cut",
    check: "spans of what is cut when the relay ends are sent",
    file: "src/telemetry/otlp-tracer.ts",
    find: "      await whenEnded();\n",
    replace: "",
    tests: [KINDS],
  },
];

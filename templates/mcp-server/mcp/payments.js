// An MCP server over streamable HTTP with nothing but Node: three tools on a small list of invoices.
//
// agentid starts it and names, in AGENTID_LISTEN, the private Unix socket to listen on. Only the relay can reach that socket, so who may call
// which tool is decided before a request arrives here; the caller's SPIFFE ID comes in the X-Forwarded-Client-Cert header.
import { createServer } from "node:http";

const PROTOCOL_VERSIONS = ["2025-11-25", "2025-06-18"];
const MAX_BODY_BYTES = 1024 * 1024;

const invoices = new Map([
  [1015, { id: 1015, customer: "Brook & Sons", amount: 1250, paid: true, refunded: 0 }],
  [1016, { id: 1016, customer: "Hill Bakery", amount: 310, paid: false, refunded: 0 }],
  [1017, { id: 1017, customer: "North Mill", amount: 4200, paid: true, refunded: 0 }],
]);

const tools = {
  get_invoice: {
    description: "One invoice by its number.",
    inputSchema: {
      type: "object",
      properties: { id: { type: "integer", description: "Number of the invoice" } },
      required: ["id"],
    },
    call: ({ id }) => find(id),
  },
  list_invoices: {
    description: "All invoices.",
    inputSchema: { type: "object", properties: {} },
    call: () => [...invoices.values()],
  },
  issue_refund: {
    description: "Pays money back on an invoice.",
    inputSchema: {
      type: "object",
      properties: {
        invoice: { type: "integer", description: "Number of the invoice" },
        amount: { type: "number", description: "How much to pay back", exclusiveMinimum: 0 },
      },
      required: ["invoice", "amount"],
    },
    call: ({ invoice, amount }) => {
      const found = find(invoice);
      if (typeof amount !== "number" || !(amount > 0)) throw new ToolError("amount must be a number above 0");
      if (found.refunded + amount > found.amount) throw new ToolError(`more than what is left of invoice ${invoice}`);
      found.refunded += amount;
      return found;
    },
  },
};

/** Something is wrong with the arguments; the model reads the message and can try again. */
class ToolError extends Error {}

/** A JSON-RPC error. */
class RpcError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function find(id) {
  const invoice = invoices.get(id);
  if (invoice === undefined) throw new ToolError(`no invoice ${JSON.stringify(id)}`);
  return invoice;
}

const methods = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion: PROTOCOL_VERSIONS.includes(protocolVersion) ? protocolVersion : PROTOCOL_VERSIONS[0],
    capabilities: { tools: {} },
    serverInfo: { name: "payments", version: "1.0.0" },
  }),
  ping: () => ({}),
  "tools/list": () => ({
    tools: Object.entries(tools).map(([name, { description, inputSchema }]) => ({ name, description, inputSchema })),
  }),
  "tools/call": ({ name, arguments: args = {} }) => {
    if (!Object.hasOwn(tools, name)) throw new RpcError(-32602, `Unknown tool: ${name}`);
    if (!isObject(args)) throw new RpcError(-32602, "arguments must be an object");
    try {
      return { content: [{ type: "text", text: JSON.stringify(tools[name].call(args)) }], isError: false };
    } catch (error) {
      if (!(error instanceof ToolError)) throw error;
      return { content: [{ type: "text", text: error.message }], isError: true };
    }
  },
};

/** The answer to one JSON-RPC message, or undefined for a notification or a response. */
function answer(message) {
  if (!isObject(message) || message.jsonrpc !== "2.0") throw new RpcError(-32600, "Invalid Request");
  if (message.id === undefined || message.method === undefined) return undefined;
  const { id, method, params = {} } = message;
  try {
    if (!Object.hasOwn(methods, method)) throw new RpcError(-32601, `Method not found: ${method}`);
    if (!isObject(params)) throw new RpcError(-32602, "params must be an object");
    return { jsonrpc: "2.0", id, result: methods[method](params) };
  } catch (error) {
    return rpcError(id, error);
  }
}

function rpcError(id, error) {
  const known = error instanceof RpcError;
  if (!known) console.error("payments:", error);
  return {
    jsonrpc: "2.0",
    id,
    error: { code: known ? error.code : -32603, message: known ? error.message : "Internal error" },
  };
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new RpcError(-32600, "Request too large");
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    throw new RpcError(-32700, "Parse error");
  }
}

function send(response, status, body) {
  const text = body === undefined ? "" : JSON.stringify(body);
  response.writeHead(status, body === undefined ? {} : { "Content-Type": "application/json" }).end(text);
}

const server = createServer(async (request, response) => {
  if (new URL(request.url, "http://payments").pathname !== "/mcp") return send(response, 404);
  // No stream of its own (GET) and no sessions (DELETE): each answer is complete.
  if (request.method !== "POST") return send(response.setHeader("Allow", "POST"), 405);
  // A browser page has no business here.
  if (request.headers.origin !== undefined) return send(response, 403);
  const version = request.headers["mcp-protocol-version"];
  if (version !== undefined && !PROTOCOL_VERSIONS.includes(version)) {
    return send(response, 400, rpcError(null, new RpcError(-32600, `Unsupported protocol version: ${version}`)));
  }
  try {
    const answered = answer(await readBody(request));
    send(response, answered === undefined ? 202 : 200, answered);
  } catch (error) {
    send(response, 400, rpcError(null, error));
  }
});

if (process.env.AGENTID_LISTEN === undefined) {
  console.error("payments: agentid dev starts me and names my socket in AGENTID_LISTEN");
  process.exit(2);
}
server.listen(process.env.AGENTID_LISTEN, () => console.log("payments: ready"));
for (const signal of ["SIGINT", "SIGTERM"])
  process.on(signal, () => server.close(() => process.exit(0)).closeAllConnections());

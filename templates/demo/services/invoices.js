// An ordinary HTTP service that knows nothing of TLS, SPIFFE or agentid. It listens on the private Unix socket it was given.
import { createServer } from "node:http";

const invoices = [
  { id: 1017, customer: "Ada", amount: 4200 },
  { id: 1018, customer: "Mallory", amount: 90 },
];

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://invoices");
  // Who called, as the relay attests it; a copy sent by the caller never arrives.
  const caller = request.headers["x-forwarded-client-cert"] ?? "";
  if (pathname === "/v1/feed") return feed(request, response);
  const id = Number(pathname.replace("/v1/invoices/", ""));
  const body = pathname === "/v1/invoices" ? invoices : invoices.find((invoice) => invoice.id === id);
  response.writeHead(body ? 200 : 404, { "content-type": "application/json" });
  response.end(JSON.stringify({ caller, body: body ?? null }));
});
server.listen(process.env.AGENTID_LISTEN);
process.on("SIGTERM", () => process.exit(0));

/** Server-sent events, ten a second, for as long as the caller listens. */
function feed(request, response) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  let tick = 0;
  const timer = setInterval(() => {
    tick += 1;
    response.write(`data: ${tick}\n\n`);
  }, 100);
  request.on("close", () => clearInterval(timer));
}

// A service that agentid starts. It listens on the private Unix socket named in AGENTID_LISTEN; only the relay can reach it, and who called
// comes in the X-Forwarded-Client-Cert header.
import { createServer } from "node:http";

const server = createServer((request, response) => {
  const answers = { "/hello": "hello", "/secret": "the secret" };
  const { pathname } = new URL(request.url, "http://hello");
  const found = request.method === "GET" && Object.hasOwn(answers, pathname);
  response
    .writeHead(found ? 200 : 404, { "Content-Type": "text/plain" })
    .end(found ? `${answers[pathname]}, ${callerOf(request)}\n` : "");
});

/** The SPIFFE ID of the caller, as the relay states it. */
function callerOf(request) {
  return /(?:^|;)URI=([^;,]+)/.exec(request.headers["x-forwarded-client-cert"] ?? "")?.[1] ?? "stranger";
}

if (process.env.AGENTID_LISTEN === undefined) {
  console.error("hello: agentid dev starts me and names my socket in AGENTID_LISTEN");
  process.exit(2);
}
server.listen(process.env.AGENTID_LISTEN, () => console.log("hello: ready"));
for (const signal of ["SIGINT", "SIGTERM"])
  process.on(signal, () => server.close(() => process.exit(0)).closeAllConnections());

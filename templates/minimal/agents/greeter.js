// Calls the hello service twice: once as the policy allows, once as it does not. Start it with:
//
//   agentid run greeter -- node agents/greeter.js
import { get } from "node:http";

const base = process.env.AGENTID_URL_HELLO;
if (base === undefined) {
  console.error("greeter: no identity; start me with: agentid run greeter -- node agents/greeter.js");
  process.exit(2);
}

for (const path of ["/hello", "/secret"]) {
  const { status, body } = await fetchText(new URL(path, base));
  console.log(`greeter: GET ${path} ${status < 400 ? `said: ${body.trim()}` : `refused: ${reasonOf(status, body)}`}`);
}

function fetchText(url) {
  return new Promise((resolve, reject) => {
    // An agent of its own: a proxy from the environment would only be in the way of a call on this machine.
    get(url, { agent: false }, async (response) => {
      let body = "";
      for await (const chunk of response.setEncoding("utf8")) body += chunk;
      resolve({ status: response.statusCode, body });
    }).on("error", reject);
  });
}

/** What a refusal says: the detail of its problem document (RFC 9457), else its status. */
function reasonOf(status, body) {
  try {
    return JSON.parse(body).detail ?? `HTTP ${status}`;
  } catch {
    return `HTTP ${status}`;
  }
}

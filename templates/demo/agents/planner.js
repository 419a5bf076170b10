// A planner agent: plain HTTP to the addresses in its environment; it knows nothing of TLS, certificates or keys.
// One task a line on standard input, one answer a line on standard output.
import { createInterface } from "node:readline";

const invoices = process.env.AGENTID_URL_INVOICES;
const payments = process.env.AGENTID_URL_PAYMENTS;
const print = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

async function http(method, path) {
  const response = await fetch(invoices + path, { method });
  const body = await response.json();
  return {
    ok: response.ok,
    status: response.status,
    text: body.detail ?? JSON.stringify(body.body),
    caller: body.caller,
  };
}

async function tool(name, args) {
  const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } };
  const response = await fetch(`${payments}/mcp`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: JSON.stringify(call),
  });
  const answer = await response.json();
  if (!answer.result) return { ok: false, status: response.status, text: answer.error?.message ?? answer.detail };
  return { ok: !answer.result.isError, status: response.status, text: answer.result.content[0].text };
}

/** Follows the feed on one connection; prints the number of each event. */
async function follow() {
  const response = await fetch(`${invoices}/v1/feed`);
  let text = "";
  for await (const chunk of response.body) {
    text += Buffer.from(chunk).toString();
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) print({ feed: Number(event.replace("data: ", "")) });
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  if (task.do === "http") print(await http(task.method, task.path));
  else if (task.do === "tool") print(await tool(task.tool, task.arguments));
  else if (task.do === "follow") follow().catch((error) => print({ feed: "broken", text: error.message }));
}
process.exit(0);

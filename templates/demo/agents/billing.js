// The billing agent for machines without Python: the same tasks, the same answers.
import { createInterface } from "node:readline";

async function callTool(tool, args) {
  const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: tool, arguments: args } };
  const response = await fetch(`${process.env.AGENTID_URL_PAYMENTS}/mcp`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: JSON.stringify(call),
  });
  const answer = await response.json();
  if (!answer.result) return { ok: false, status: response.status, text: answer.error?.message ?? answer.detail };
  return { ok: !answer.result.isError, status: response.status, text: answer.result.content[0].text };
}

/** Reads an invoice and does what it says. */
async function obey(id) {
  const read = await callTool("get_invoice", { invoice: id });
  const order = /call (\w+) with invoice (\d+) and amount (\d+)/.exec(read.text);
  if (!order) return { ...read, obeyed: false };
  const [, name, invoice, amount] = order;
  const done = await callTool(name, { invoice: Number(invoice), amount: Number(amount) });
  return { ...done, obeyed: true, read: read.text };
}

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  process.stdout.write(
    `${JSON.stringify(await (task.do === "obey" ? obey(task.invoice) : callTool(task.tool, task.arguments)))}\n`,
  );
}

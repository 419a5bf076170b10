// Runs in a network of its own, whose loopback interface has a public address: an API out there, a trust domain here, and an agent's calls.
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { createInterface } from "node:readline";

const [bin, project, hosts, names] = process.argv.slice(2);
const arrived = [];
const open = (address, name) =>
  new Promise((resolve) => {
    const files = { cert: readFileSync(`${project}/web.pem`), key: readFileSync(`${project}/web.key`) };
    const server = createServer(files, (request, response) => {
      arrived.push([name, request.socket.servername, request.headers.host, request.headers.authorization]);
      response.setHeader("connection", "close").end(name);
    });
    server.listen(443, address, () => resolve(server));
  });
const servers = [await open(names, "outside"), await open("127.0.0.1", "inside")];
const leadsTo = (...addresses) =>
  writeFileSync(hosts, `127.0.0.1 localhost\n${addresses.map((one) => `${one} api.openai.com\n`).join("")}`);
leadsTo(names);
const dev = spawn(process.execPath, [bin, "dev", "--json"], { cwd: project, stdio: ["ignore", "pipe", "inherit"] });
const results = [];
for await (const line of createInterface({ input: dev.stdout })) {
  const event = JSON.parse(line);
  if (event.error !== undefined) throw new Error(line);
  if (event.event !== "ready") continue;
  dev.stdout.resume();
  const call = async (name) => {
    const response = await fetch(`${event.egress[name].url}/`);
    const text = await response.text();
    results.push(response.status === 200 ? text : JSON.parse(text).code);
  };
  await call("openai");
  // The Web PKI does not know this authority.
  await call("public");
  leadsTo("127.0.0.1");
  await call("openai");
  leadsTo(names, "127.0.0.1");
  await call("openai");
  leadsTo(names);
  await call("openai");
  break;
}
dev.kill("SIGTERM");
await new Promise((resolve) => dev.once("close", resolve));
for (const server of servers) server.close();
process.stdout.write(JSON.stringify({ results, arrived }));

import { makeProject, python } from "./agentid.js";

/** A small shop as a user would write it: two launched agents, one HTTP service that agentid starts. */
export function makeShop(changes: Readonly<Record<string, string>> = {}): string {
  return makeProject({
    "agentid.yaml": shopYaml(),
    "agents/billing.py": AGENT,
    "agents/planner.py": AGENT,
    "services/invoices.js": SERVICE,
    "policies/shop.yaml": POLICY,
    ...changes,
  });
}

export const billingCommand = [python ?? "python3", "agents/billing.py"];
export const plannerCommand = [python ?? "python3", "agents/planner.py"];

export function shopYaml(reload: "auto" | "confirm" = "auto"): string {
  return `trustDomain: shop.local
identities:
  agents/billing:
    launch: ${JSON.stringify(billingCommand)}
  agents/planner:
    launch: ${JSON.stringify(plannerCommand)}
  services/invoices: { service: invoices }
services:
  invoices: { http: { command: [${JSON.stringify(process.execPath)}, services/invoices.js] } }
reload: ${reload}
`;
}

export const POLICY = `rules:
  - name: billing-reads
    allow: { from: agents/billing, to: services/invoices, method: GET, path: /v1/** }
`;

/** The same program for every agent: what it may do follows from its launch alone. One "METHOD /path" a line, or "exec PROGRAM". */
const AGENT = `import os, subprocess, sys, urllib.request, urllib.error
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    method, path = line.split(None, 1)
    path = path.strip()
    if method == "exec":
        os.execv(path, [path])
    if method == "run":
        done = subprocess.run(path, shell=True, capture_output=True, text=True)
        print(done.returncode, (done.stdout + done.stderr).replace("\\n", " | "), flush=True)
        continue
    request = urllib.request.Request(os.environ["AGENTID_URL_INVOICES"] + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            print(response.status, response.read().decode(), flush=True)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode(), flush=True)
`;

const SERVICE = `const { createServer } = require("node:http");
createServer((request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ path: request.url, caller: request.headers["x-forwarded-client-cert"] ?? null }));
}).listen(process.env.AGENTID_LISTEN);
`;

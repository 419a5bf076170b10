import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createWebAuthority } from "../federation/web-certificates.js";
import { secret } from "../relay/outside.js";
import { bin, giveTo, makeProject, ordinaryUser, run, runtimeBase } from "./agentid.js";

/**
 * The way out as it is without `private`: a name that the system resolves, a public address, port 443. A network namespace has that address on its
 * loopback interface, and a hosts file of its own.
 */

const PUBLIC = "93.184.215.14";
const namespaces = ["-Urnm", "--"];
const tried = spawnSync("unshare", [...namespaces, "ip", "link", "set", "lo", "up"], {
  ...ordinaryUser,
  encoding: "utf8",
});
if (tried.status !== 0) {
  process.stderr.write(`SKIPPED: egress to a public address: ${tried.error?.message ?? tried.stderr}\n`);
}

describe.skipIf(tried.status !== 0)("a target at a public address", () => {
  it("is called where its name leads outside, and not where it leads inside", async () => {
    const project = makeProject({
      "agentid.yaml": `trustDomain: shop.local
identities: { agents/tests: { exe: ${JSON.stringify(realpathSync(process.execPath))} } }
egress:
  openai: { url: https://api.openai.com, header: { Authorization: "Bearer ${secret("openai")}" }, ca: ca.pem }
  public: { url: https://api.openai.com }
secrets:
  openai: { file: .env, key: OPENAI_API_KEY }
`,
      ".env": "OPENAI_API_KEY=sk-outside-0123456789\n",
      "policies/all.yaml": 'rules:\n  - { name: all, allow: { from: agents/tests, to: "egress/*" } }\n',
    });
    chmodSync(join(project, ".env"), 0o600);
    const authority = await createWebAuthority();
    await authority.issue(project, ["api.openai.com"]);
    writeFileSync(join(project, "ca.pem"), authority.pem);
    const hosts = join(mkdtempSync(join(runtimeBase(), "hosts-")), "hosts");
    writeFileSync(hosts, "");
    giveTo(project);
    giveTo(join(hosts, ".."));
    const script = [
      `ip link set lo up && ip addr add ${PUBLIC}/32 dev lo && mount --bind ${hosts} /etc/hosts`,
      `exec ${process.execPath} ${join(import.meta.dirname, "egress-outside.mjs")} ${bin} ${project} ${hosts} ${PUBLIC}`,
    ].join(" && ");
    const { code, stdout, stderr } = await run("unshare", [...namespaces, "sh", "-c", script], { cwd: project });
    expect(code, stderr).toBe(0);
    const called = ["outside", "api.openai.com", "api.openai.com", "Bearer sk-outside-0123456789"];
    expect(JSON.parse(stdout)).toEqual({
      results: ["outside", "upstream-unverified", "address-refused", "address-refused", "outside"],
      arrived: [called, called],
    });
  });
});

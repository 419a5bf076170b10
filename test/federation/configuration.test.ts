import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { compareConfigs } from "../../src/config/compare.js";
import { compareProjects, loadProject } from "../../src/daemon/project.js";
import { serialiseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { parse, problemsOf, project } from "../config/project.js";
import { codeOf, createTrustDomain, type TestTrustDomain } from "./trust-domain.js";

const root = join(import.meta.dirname, "..", "..");
const BASE = "trustDomain: shop.local\nreload: confirm\n";
const ENDPOINT = `federation: { endpoint: { listen: "127.0.0.1:8443", profile: https_spiffe } }\n`;
const follow = (fields: string, name = "bank.local") => `federation: { trustDomains: { ${name}: { ${fields} } } }\n`;
const SPIFFE = `url: "https://127.0.0.1:9443/", profile: https_spiffe, endpointSpiffeId: "spiffe://bank.local/endpoint", bundle: bank.json`;
const WEB = `url: "https://bank.example/bundle", profile: https_web`;

describe("federation in agentid.yaml", () => {
  it("means what it says", () => {
    const { federation, identities } = parse(BASE + ENDPOINT);
    expect(federation.endpoint).toEqual({ listen: { host: "127.0.0.1", port: 8443 }, web: undefined });
    expect(identities.map(({ name }) => name)).toEqual(["agentid/bundle-endpoint"]);
    const [spiffe] = parse(BASE + follow(SPIFFE)).federation.relationships;
    expect(spiffe).toMatchObject({ url: "https://127.0.0.1:9443/", spiffe: { bundleFile: "/shop/bank.json" } });
    const [web] = parse(BASE + follow(WEB)).federation.relationships;
    expect(web).toMatchObject({ url: "https://bank.example/bundle", spiffe: undefined });
    const files = `federation: { endpoint: { listen: "0.0.0.0:8443", profile: https_web, certificate: c.pem, key: c.key } }\n`;
    expect(parse(BASE + files).federation.endpoint?.web).toEqual({ certificate: "/shop/c.pem", key: "/shop/c.key" });
    expect(parse(BASE + files).identities).toEqual([]);
    expect(parse(BASE).federation).toEqual({ endpoint: undefined, relationships: [] });
    expect(parse(BASE).oidc).toBeUndefined();
  });

  it.each([
    [follow(SPIFFE.replace("https:", "http:")), "https:// only"],
    [follow(SPIFFE.replace("127.0.0.1", "user:secret@127.0.0.1")), "user name or password"],
    [follow(SPIFFE.replace(/, bundle.*/, "")), "needs endpointSpiffeId and bundle"],
    [follow(SPIFFE.replace("bank.local/endpoint", "bank.local")), "names a trust domain"],
    [follow(`${WEB}, bundle: x.json`), "takes no endpointSpiffeId and bundle"],
    [follow(WEB, "shop.local"), "cannot be federated with itself"],
    [follow(WEB, "Bank.local"), "trust domain may hold only"],
    [ENDPOINT.replace("https_spiffe", "https_web"), "needs certificate and key"],
    [ENDPOINT.replace("https_spiffe", "https_spiffe, certificate: c"), "takes no certificate and key"],
    [ENDPOINT.replace("127.0.0.1:8443", "8443"), "not host:port"],
    ["identities: { agentid/bundle-endpoint: { uid: 1 } }\n", "agentid's own bundle endpoint"],
    [`oidc: { listen: "127.0.0.1:1", issuer: "http://issuer.example" }\n`, "https:// address"],
    [`oidc: { listen: "127.0.0.1:1", issuer: "https://issuer.example/" }\n`, "write it as https://issuer.example"],
    [`oidc: { listen: "127.0.0.1:1", issuer: "https://issuer.example?x" }\n`, "no query"],
    [`oidc: { listen: "127.0.0.1:1", issuer: "https://i.example", key: k }\n`, "go together"],
  ])("refuses %s", (text, reason) => {
    expect(problemsOf(BASE + text).join("\n")).toContain(reason);
  });

  it("widens by a new or changed trust domain, endpoint or issuer, and narrows by a removed one", () => {
    const OIDC = `oidc: { listen: "127.0.0.1:1", issuer: "https://issuer.example" }\n`;
    const texts: readonly (readonly [string, string])[] = [
      ["", follow(WEB)],
      ["", follow(SPIFFE)],
      ["", ENDPOINT],
      ["", OIDC],
    ];
    for (const [less, more] of texts) {
      expect(compareConfigs(parse(BASE + less), parse(BASE + more)), more).toMatchObject({ widened: true });
      expect(compareConfigs(parse(BASE + more), parse(BASE + less)), more).toMatchObject({ widened: false });
      expect(compareConfigs(parse(BASE + more), parse(BASE + more)).changes).toEqual([]);
    }
    const changed: readonly (readonly [string, string])[] = [
      [follow(WEB), follow(WEB.replace("bank.example", "evil.example"))],
      [follow(SPIFFE), follow(SPIFFE.replace("/endpoint", "/other"))],
      [follow(SPIFFE), follow(SPIFFE.replace("bank.json", "other.json"))],
      [ENDPOINT, ENDPOINT.replace("127.0.0.1", "0.0.0.0")],
      [OIDC, OIDC.replace("issuer.example", "evil.example")],
    ];
    for (const [old, next] of changed) {
      const { widened, changes } = compareConfigs(parse(BASE + old), parse(BASE + next));
      expect({ widened, lines: changes.length }, next).toEqual({ widened: true, lines: 1 });
    }
  });
});

describe("the file of a first bundle", () => {
  it("is part of what a reload compares: another bundle in it widens, though agentid.yaml says the same", async () => {
    const [bank, impostor] = [createTrustDomain("bank.local"), createTrustDomain("bank.local")];
    const text = (of: TestTrustDomain) => serialiseSpiffeBundle(of.published.current());
    const folder = await project({ "agentid.yaml": BASE + follow(SPIFFE), "bank.json": text(bank) });
    const before = await loadProject(folder, {});
    expect(compareProjects(before, await loadProject(folder, {}))).toEqual({ widened: false, changes: [] });
    writeFileSync(join(folder, "bank.json"), text(impostor));
    expect(compareProjects(before, await loadProject(folder, {}))).toEqual({
      widened: true,
      changes: ["~ federation.trustDomains.bank.local: the bundle in its file"],
    });
    writeFileSync(join(folder, "bank.json"), "{}");
    expect(await codeOf(() => loadProject(folder, {}))).toBe("config-invalid");
  });
});

describe("docs/federation.md", () => {
  const page = readFileSync(join(root, "docs", "federation.md"), "utf8");

  it("shows configurations that load and commands that there are", () => {
    const blocks = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text]) => text ?? "");
    const configurations = blocks.filter((text) => text.startsWith("trustDomain:"));
    expect(configurations.flatMap(problemsOf)).toEqual([]);
    expect(configurations).toHaveLength(2);
    const commands = [...page.matchAll(/agentid (bundle|federate|reload|authority|status)(?: (\w+))?/g)];
    expect(commands.length).toBeGreaterThan(8);
    for (const [shown, topic = "", name] of commands) {
      const file = name === undefined ? `${topic}.ts` : join(topic, `${name}.ts`);
      expect(existsSync(join(root, "src", "commands", file)), shown).toBe(true);
    }
  });
});

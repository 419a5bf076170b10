import { lstat, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { initProject, templateNames, trustDomainOf } from "../../src/config/init-project.js";
import { loadConfig } from "../../src/config/load.js";
import { project } from "./project.js";

const read = (directory: string, file: string) => readFile(join(directory, file), "utf8");

describe("agentid init", () => {
  it("writes everything of a template into a folder that it makes, named after it", async () => {
    const directory = join(await project(), "My Shop");
    const result = await initProject(directory, "mcp-server", { overwrite: false });
    expect(result).toEqual({
      written: [
        "agentid.yaml",
        "agents/billing.py",
        "mcp/payments.js",
        "policies/payments.test.yaml",
        "policies/payments.yaml",
        "agentid.schema.json",
      ],
      conflicts: [],
    });
    expect((await readdir(directory)).sort()).toEqual([
      "agentid.schema.json",
      "agentid.yaml",
      "agents",
      "mcp",
      "policies",
    ]);
    expect((await loadConfig(join(directory, "agentid.yaml"))).trustDomain.name).toBe("my-shop.local");
    expect(await read(directory, "agentid.yaml")).toContain("spiffe://my-shop.local/agents/billing");
    expect(await read(directory, "agentid.yaml")).not.toContain("//shop.local");
  });

  it("takes the trust domain that is asked for", async () => {
    const directory = await project();
    await initProject(directory, "minimal", { trustDomain: "dev.example.org", overwrite: false });
    expect((await loadConfig(join(directory, "agentid.yaml"))).trustDomain.name).toBe("dev.example.org");
  });

  it("refuses a trust domain that is none, and writes nothing", async () => {
    const directory = await project();
    await expect(initProject(directory, "minimal", { trustDomain: "a b", overwrite: false })).rejects.toMatchObject({
      code: "trust-domain-invalid",
    });
    expect(await readdir(directory)).toEqual([]);
  });

  it("writes nothing at all over a file that differs, and names it", async () => {
    const directory = await project({ "agentid.yaml": "trustDomain: mine\n", "policies/hello.yaml": "rules: []\n" });
    expect(await initProject(directory, "minimal", { overwrite: false })).toEqual({
      written: [],
      conflicts: ["agentid.yaml", "policies/hello.yaml"],
    });
    expect(await read(directory, "agentid.yaml")).toBe("trustDomain: mine\n");
    expect((await readdir(directory)).sort()).toEqual(["agentid.yaml", "policies"]);
  });

  it("overwrites when told to, and only what differs", async () => {
    const directory = await project({ "agentid.yaml": "trustDomain: mine\n" });
    const { written } = await initProject(directory, "minimal", { overwrite: true });
    expect(written).toContain("agentid.yaml");
    expect(await read(directory, "agentid.yaml")).toContain("agents/greeter");
    expect(await initProject(directory, "minimal", { overwrite: true })).toEqual({ written: [], conflicts: [] });
    expect(await initProject(directory, "minimal", { overwrite: false })).toEqual({ written: [], conflicts: [] });
    expect((await readdir(directory, { recursive: true })).filter((name) => /\.[0-9a-f]{12}$/.test(name))).toEqual([]);
  });

  it("replaces a link instead of writing where it points", async () => {
    const elsewhere = await project({ "precious.yaml": "keep me\n" });
    const directory = await project();
    await symlink(join(elsewhere, "precious.yaml"), join(directory, "agentid.yaml"));
    expect((await initProject(directory, "minimal", { overwrite: false })).conflicts).toEqual(["agentid.yaml"]);
    await initProject(directory, "minimal", { overwrite: true });
    expect(await read(elsewhere, "precious.yaml")).toBe("keep me\n");
    expect((await lstat(join(directory, "agentid.yaml"))).isFile()).toBe(true);
  });

  it("does not follow a dangling link", async () => {
    const elsewhere = await project();
    const directory = await project();
    await symlink(join(elsewhere, "new.yaml"), join(directory, "agentid.yaml"));
    expect((await initProject(directory, "minimal", { overwrite: false })).conflicts).toEqual(["agentid.yaml"]);
    expect(await readdir(elsewhere)).toEqual([]);
  });

  it("names the nearest template", async () => {
    await expect(initProject(await project(), "mcp_server", { overwrite: false })).rejects.toMatchObject({
      code: "template-unknown",
      message: 'no template "mcp_server"; did you mean "mcp-server"?',
    });
    await expect(initProject(await project(), "../src", { overwrite: false })).rejects.toMatchObject({
      code: "template-unknown",
    });
  });

  it.each([
    ["/home/dev/shop", "shop.local"],
    ["/home/dev/My Shop!", "my-shop.local"],
    ["/home/dev/...", "project.local"],
    ["/", "project.local"],
    ["/home/dev/Ünïcode", "n-code.local"],
  ])("%s → %s", (directory, trustDomain) => {
    expect(trustDomainOf(directory)).toBe(trustDomain);
  });

  it("knows each template by its folder", async () => {
    const directory = await project();
    await mkdir(join(directory, "x"));
    await writeFile(join(directory, "x/unrelated"), "");
    for (const name of templateNames) {
      expect((await initProject(join(directory, name), name, { overwrite: false })).written).toContain("agentid.yaml");
    }
  });
});

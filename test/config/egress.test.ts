import { describe, expect, it } from "vitest";
import { compareConfigs } from "../../src/config/compare.js";
import { parse, problemsOf } from "./project.js";

const yaml = (egress: string, more = "") => `trustDomain: shop.local\negress: ${egress}\n${more}`;
const target = (entry: string) => yaml(`{ openai: { ${entry} } }`);
const url = (text: string, more = "") => target(`url: ${JSON.stringify(text)}${more}`);
const braces = (text: string) => `\${${text}}`;
const secret = (name: string) => braces(`secret:${name}`);
const header = (name: string, value: string) =>
  target(`url: https://api.test, header: { ${JSON.stringify(name)}: ${JSON.stringify(value)} }`);

describe("what a target's address may be", () => {
  it.each([
    ["https://api.openai.com", { scheme: "https", host: "api.openai.com", port: 443, basePath: "" }],
    ["https://api.openai.com/v1", { scheme: "https", host: "api.openai.com", port: 443, basePath: "/v1" }],
    ["https://api.test:8443/a/b.c/v1_x~", { scheme: "https", host: "api.test", port: 8443, basePath: "/a/b.c/v1_x~" }],
    ["https://8.8.8.8", { host: "8.8.8.8" }],
    ["https://[2606:4700::1111]:8443", { host: "2606:4700::1111", port: 8443 }],
    ["https://xn--bcher-kva.test", { host: "xn--bcher-kva.test" }],
  ])("%s", (text, expected) => {
    expect(problemsOf(url(text))).toEqual([]);
    expect(parse(url(text)).egress[0]).toMatchObject({ ...expected, private: false, headers: [] });
  });

  it.each([
    ["ftp://api.test", /only https/],
    ["api.test", /not a URL/],
    ["https://", /not a URL/],
    ["https://user@api.test", /user name/],
    ["https://user:key@api.test", /user name/],
    ["https://@api.test", /user name/],
    ["https://api.test@evil.test", /user name/],
    ["https://api.test?key=1", /query or fragment/],
    ["https://api.test?", /query or fragment/],
    ["https://api.test#x", /query or fragment/],
    ["https://api.test#", /query or fragment/],
    ["https://api.test.", /end with a dot/],
    ["https://API.test", /write it as https:\/\/api\.test/],
    ["HTTPS://api.test", /write it as/],
    ["https://api.test/", /write it as https:\/\/api\.test/],
    ["https://api.test/v1/", /write it as https:\/\/api\.test\/v1/],
    ["https://api.test:443", /write it as https:\/\/api\.test/],
    ["https://api.test:", /write it as/],
    ["https:/api.test", /write it as/],
    ["https:\\\\api.test", /write it as/],
    ["https://api.test\\v1", /write it as/],
    ["https://api.test/a/../v1", /write it as https:\/\/api\.test\/v1/],
    ["https://api.test/a/%2e%2e/v1", /write it as/],
    ["https://api.test/./v1", /write it as/],
    ["https://api.test//v1", /base path/],
    ["https://api.test/a%2fb", /base path/],
    ["https://api.test/a;b", /base path/],
    ["https://api.test/a.", /base path/],
    ["https://api.test/a b", /write it as/],
    ["https://a\tpi.test", /write it as/],
    ["https://b\u00fccher.test", /write it as https:\/\/xn--bcher-kva\.test/],
    ["https://api\u3002test", /write it as/],
    ["https://\u24d0pi.test", /write it as/],
    ["https://%61pi.test", /write it as/],
    ["https://2130706433", /write it as https:\/\/127\.0\.0\.1/],
    ["https://0x7f000001", /write it as https:\/\/127\.0\.0\.1/],
    ["https://0177.0.0.1", /write it as https:\/\/127\.0\.0\.1/],
    ["https://127.1", /write it as https:\/\/127\.0\.0\.1/],
    ["https://0", /write it as https:\/\/0\.0\.0\.0/],
    ["https://[::ffff:127.0.0.1]", /write it as/],
    ["https://[0:0:0:0:0:0:0:1]", /write it as/],
    ["https://127.0.0.1", /loopback.*private: true/],
    ["https://localhost", /loopback.*private: true/],
    ["https://api.localhost", /loopback.*private: true/],
    ["https://10.0.0.1", /private\).*private: true/],
    ["https://169.254.169.254", /link-local.*private: true/],
    ["https://100.64.0.1", /CGNAT.*private: true/],
    ["https://[::1]", /loopback.*private: true/],
    ["https://[::ffff:7f00:1]", /IPv4-mapped.*private: true/],
    ["https://[64:ff9b::7f00:1]", /NAT64.*private: true/],
    ["https://[fd00::1]", /unique local.*private: true/],
    ["http://api.test", /plain http to api\.test/],
    ["http://10.0.0.1", /plain http/],
    ["http://127.0.0.1:8080", /loopback.*private: true/],
  ])("%j is refused", (text, said) => expect(problemsOf(url(text)).join("\n")).toMatch(said));

  it.each([
    "https://127.0.0.1",
    "https://10.0.0.1:8443",
    "https://[fd00::1]",
    "http://127.0.0.1:8080",
    "http://localhost:1",
  ])("%s is where `private` says so", (text) => expect(problemsOf(url(text, ", private: true"))).toEqual([]));

  it.each(["http://10.0.0.1", "http://api.test", "http://localhost.test"])("%s is not, also then", (text) =>
    expect(problemsOf(url(text, ", private: true")).join("\n")).toMatch(/plain http/),
  );
});

describe("headers", () => {
  it("are text and names of secrets", () => {
    const [openai] = parse(header("Authorization", `Bearer ${secret("openai")} ${secret("b.c")}x`)).egress;
    expect(openai?.headers).toEqual([
      { name: "Authorization", value: ["Bearer ", { secret: "openai" }, " ", { secret: "b.c" }, "x"] },
    ]);
    expect(problemsOf(header("anthropic-version", "2023-06-01"))).toEqual([]);
  });

  it.each([
    ["Bad Name", "x", /not the name of a header/],
    ["X:", "x", /not the name of a header/],
    ["", "x", /not the name of a header/],
    ["Host", "x", /belongs to the message/],
    ["content-length", "1", /belongs to the message/],
    ["Transfer-Encoding", "chunked", /belongs to the message/],
    ["X-A", "a\r\nX-B: c", /printable/],
    ["X-A", "a\u0000", /printable/],
    ["X-A", "a\u0142", /printable/],
    ["X-A", " a", /printable/],
    ["X-A", "", /printable/],
    ["X-A", braces("OPENAI_API_KEY"), /write \$\{secret:NAME\}/i],
    ["X-A", braces("secrets:openai"), /did you mean "secret"/],
    ["X-A", "${secret:openai", /write \$\{secret:NAME\}/i],
    ["X-A", braces("secret:"), /a secret's name/],
    ["X-A", braces("secret:a b"), /a secret's name/],
    ["Authorization", "Bearer sk-123", /stand in agentid.yaml for everybody/],
    ["x-api-key", "sk-123", /stand in agentid.yaml for everybody/],
    ["X-Auth-Token", "abc", /stand in agentid.yaml for everybody/],
  ])("%j: %j is refused", (name, value, said) => expect(problemsOf(header(name, value)).join("\n")).toMatch(said));

  it("stand there once", () => {
    const twice = `url: https://api.test, header: { X-A: a, x-a: b }`;
    expect(problemsOf(target(twice)).join("\n")).toMatch(/x-a: the same header stands above it/);
  });
});

describe("secrets", () => {
  const keyed = `{ openai: { url: https://api.test, header: { X-Key: "${secret("openai")}" } } }`;
  const source = (entry: string) => yaml(keyed, `secrets: { openai: ${entry} }\n`);

  it("are in the keychain, or where the file says", () => {
    expect(parse(yaml(keyed)).secrets).toEqual({ openai: { kind: "keychain" } });
    expect(parse(source("{ keychain: true }")).secrets).toEqual({ openai: { kind: "keychain" } });
    expect(parse(source("{ file: .env.local, key: K }")).secrets).toEqual({
      openai: { kind: "file", path: "/shop/.env.local", key: "K" },
    });
    expect(parse(source("{ command: [op, read, x] }")).secrets).toEqual({
      openai: { kind: "command", argv: ["op", "read", "x"] },
    });
  });

  it.each([
    ["{}", /exactly one of keychain, file and command/],
    ["{ keychain: true, command: [a] }", /exactly one of/],
    ["{ file: .env }", /file and key go together/],
    ["{ keychain: true, key: K }", /file and key go together/],
    ["{ keychain: false }", /must be true/],
    ["{ file: .env, key: A-B }", /not the name of an environment variable/],
    ["{ command: [] }", /empty/],
    ["{ value: sk-123 }", /unknown key "value"/],
  ])("%s is refused", (entry, said) => expect(problemsOf(source(entry)).join("\n")).toMatch(said));

  it("that nothing names are most likely misspelt", () => {
    expect(problemsOf(yaml(keyed, "secrets: { openia: { command: [a] } }\n")).join("\n")).toMatch(
      /secrets\.openia: no header below egress names this secret; did you mean "openai"/,
    );
  });
});

describe("names and ports", () => {
  it.each([
    ["{ Open_AI: { url: https://a.test } }", "", /a target's name holds only/],
    ["{ s: { url: https://a.test } }", "services: { s: { http: { unix: a } } }\n", /services\.s has this name/],
    ["{ a: { url: https://a.test } }", "identities: { egress/a: { uid: 1 } }\n", /rules know egress\.a by this name/],
    [
      "{ a: { url: https://a.test, listen: 18080 } }",
      "services: { s: { http: { unix: a }, listen: 18080 } }\n",
      /port 18080 is already that of services\.s/,
    ],
    [
      "{ a: { url: https://a.test, listen: 18080 }, b: { url: https://a.test, listen: 18080 } }",
      "",
      /port 18080 is already that of egress\.a/,
    ],
  ])("%s %s is refused", (egress, more, said) => expect(problemsOf(yaml(egress, more)).join("\n")).toMatch(said));
});

describe("a target that is reached by CONNECT", () => {
  const byConnect = (more = "", at = "https://api.test") => target(`url: "${at}", connect: true${more}`);

  it("is decided by its host, on one port for all such targets", () => {
    const text = yaml("{ a: { url: https://a.test:8443, connect: true } }", "proxy: { listen: 18080 }\n");
    expect(problemsOf(text)).toEqual([]);
    expect(parse(text)).toMatchObject({ proxyPort: 18_080, egress: [{ connect: true, host: "a.test", port: 8443 }] });
    expect(parse(byConnect()).egress[0]).toMatchObject({ connect: true, port: 443 });
    expect(parse(target("url: https://api.test, connect: false")).egress[0]).not.toHaveProperty("connect");
  });

  it.each([
    ["a header", byConnect(", header: { X-A: b }"), /CONNECT can only decide by host: .*nothing can be added/],
    ["authorities", byConnect(", ca: ca.pem"), /CONNECT can only decide by host: .*caller who verifies/],
    ["a path", byConnect("", "https://api.test/v1"), /CONNECT can only decide by host: a path/],
    ["a port of its own", byConnect(", listen: 18080"), /CONNECT can only decide by host: one port.*proxy:/],
    ["no TLS", byConnect(", private: true", "http://127.0.0.1"), /CONNECT can only decide by host: .*https/],
    ["an address inside", byConnect("", "https://10.0.0.1"), /only with `private: true`/],
  ])("that asks for %s says at load what is wrong", (_what, text, said) => {
    expect(problemsOf(text).join("\n")).toMatch(said);
    expect(problemsOf(byConnect())).toEqual([]);
  });

  it("has an address of its own, and the proxy one that is used", () => {
    const twice = "{ a: { url: https://a.test, connect: true }, b: { url: https://a.test, connect: true } }";
    expect(problemsOf(yaml(twice)).join("\n")).toMatch(/CONNECT to this host is that of egress\.a already/);
    expect(problemsOf(yaml("{ a: { url: https://a.test, connect: true }, b: { url: https://a.test } }"))).toEqual([]);
    expect(problemsOf(yaml("{ a: { url: https://a.test } }", "proxy: {}\n")).join("\n")).toMatch(/nothing listens/);
    const taken = yaml(
      "{ a: { url: https://a.test, connect: true }, b: { url: https://b.test, listen: 18080 } }",
      "proxy: { listen: 18080 }\n",
    );
    expect(problemsOf(taken).join("\n")).toMatch(/port 18080 is already that of proxy/);
  });
});

describe("what permits more (WIDENED) and what does not", () => {
  const one = (more = "") => yaml(`{ a: { url: https://a.test${more} } }`);
  const keyed = (source = "") =>
    yaml(
      `{ a: { url: https://a.test, header: { X-Key: "${secret("k")}" } } }`,
      source && `secrets: { k: ${source} }\n`,
    );
  it.each([
    ["a target more", yaml("{}"), one(), true, "+ egress.a: https://a.test"],
    ["a target less", one(), yaml("{}"), false, "- egress.a: https://a.test"],
    [
      "another address",
      one(),
      yaml("{ a: { url: https://b.test } }"),
      true,
      "~ egress.a: https://a.test → https://b.test",
    ],
    ["another base path", one(), yaml("{ a: { url: https://a.test/v1 } }"), true, "~ egress.a"],
    ["another header", one(), one(", header: { X-A: b }"), true, '→ https://a.test with X-A: "b"'],
    ["a header less", one(", header: { X-A: b }"), one(), true, "~ egress.a"],
    [
      "another secret",
      keyed(),
      yaml(`{ a: { url: https://a.test, header: { X-Key: "${secret("j")}" } } }`),
      true,
      "~ egress.a",
    ],
    ["other authorities", one(), one(", ca: ca.pem"), true, "authorities in /shop/ca.pem"],
    ["open to the inside", one(), one(", private: true"), true, "~ egress.a.private: false → true"],
    ["closed to the inside", one(", private: true"), one(), false, "~ egress.a.private: true → false"],
    ["another port here", one(", listen: 18080"), one(", listen: 18081"), false, "~ egress.a.listen: 18080 → 18081"],
    [
      "whole connections",
      one(),
      one(", connect: true"),
      true,
      "~ egress.a: https://a.test → https://a.test by CONNECT",
    ],
    ["requests alone", one(", connect: true"), one(), true, "~ egress.a: https://a.test by CONNECT → https://a.test"],
    [
      "another port of the proxy",
      one(", connect: true"),
      yaml("{ a: { url: https://a.test, connect: true } }", "proxy: { listen: 18080 }\n"),
      false,
      "proxy.listen: 18080",
    ],
    ["a secret from a file", keyed(), keyed("{ file: .env, key: K }"), true, "~ secrets.k: keychain → K in /shop/.env"],
    ["another key of the file", keyed("{ file: .env, key: K }"), keyed("{ file: .env, key: L }"), true, "~ secrets.k"],
    ["another command", keyed("{ command: [a] }"), keyed("{ command: [a, b] }"), true, '→ command ["a","b"]'],
    ["the same said in full", keyed(), keyed("{ keychain: true }"), false, ""],
  ])("%s", (_what, old, next, widened, line) => {
    const compared = compareConfigs(parse(old), parse(next));
    expect(compared.changes.join("\n")).toContain(line);
    expect({ widened: compared.widened, any: compared.changes.length > 0 }).toEqual({ widened, any: line !== "" });
  });
});

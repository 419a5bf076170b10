import { describe, expect, it } from "vitest";
import { compareConfigs } from "../../src/config/compare.js";
import { compareLocks } from "../../src/config/compare-locks.js";
import type { Lock } from "../../src/config/config.js";
import { parse } from "./project.js";

const compare = (old: string, next: string) =>
  compareConfigs(parse(`trustDomain: a\n${old}`), parse(`trustDomain: a\n${next}`));

const identity = (entry: string) =>
  `identities: { x: ${entry} }\nservices: { s: { http: { unix: a } } }\nreload: confirm\n`;
const service = (entry: string) => `services: { s: ${entry} }\n`;
const lifetimes = (entry: string) => `lifetimes: ${entry}\n`;

describe("what permits more (WIDENED) and what does not", () => {
  it.each([
    [
      "another label",
      identity("{ uid: 1 }"),
      identity("{ uid: 1, labels: { team: a } }"),
      true,
      "+ identities.x.labels.team: a",
    ],
    [
      "a label less",
      identity("{ uid: 1, labels: { a: b } }"),
      identity("{ uid: 1 }"),
      true,
      "- identities.x.labels.a: b",
    ],
    [
      "another label of a service",
      service("{ http: { unix: a }, labels: { tier: one } }"),
      service("{ http: { unix: a }, labels: { tier: two } }"),
      true,
      "~ services.s.labels.tier: one → two",
    ],
    ["shadow on", identity("{ uid: 1 }"), identity("{ uid: 1, shadow: true }"), true, "+ identities.x.shadow"],
    ["shadow off", identity("{ uid: 1, shadow: true }"), identity("{ uid: 1 }"), false, "- identities.x.shadow"],
    // An identity
    ["an identity more", "", "identities: { x: { uid: 1 } }", true, "+ identities.x: uid 1"],
    ["an identity less", "identities: { x: { uid: 1 } }", "", false, "- identities.x: uid 1"],
    ["another condition", identity("{ uid: 1 }"), identity("{ uid: 1, gid: 2 }"), false, "+ identities.x.gid: 2"],
    ["a condition less", identity("{ uid: 1, gid: 2 }"), identity("{ uid: 1 }"), true, "- identities.x.gid: 2"],
    ["another user", identity("{ uid: 1 }"), identity("{ uid: 2 }"), true, "~ identities.x.uid: 1 → 2"],
    [
      "another digest",
      identity("{ exe: { path: /a, sha256: pinned } }"),
      identity(`{ exe: { path: /a, sha256: ${"a".repeat(64)} } }`),
      true,
      "~ identities.x.exeSha256",
    ],
    [
      "a digest as well",
      identity("{ exe: /a }"),
      identity("{ exe: { path: /a, sha256: pinned } }"),
      false,
      "+ identities.x.exeSha256: pinned",
    ],
    [
      "a service's identity opened to processes",
      identity("{ service: s }"),
      identity("{ service: s, uid: 1 }"),
      true,
      "+ identities.x.uid: 1",
    ],
    [
      "and closed again",
      identity("{ service: s, uid: 1 }"),
      identity("{ service: s }"),
      false,
      "- identities.x.uid: 1",
    ],
    [
      "and closed from a launch",
      identity("{ service: s, launch: [a] }"),
      identity("{ service: s }"),
      false,
      "- identities.x.launch: a",
    ],
    ["a launch", identity("{ uid: 1 }"), identity("{ uid: 1, launch: [a] }"), true, "+ identities.x.launch: a"],
    [
      "facts without the launch",
      identity("{ uid: 1, launch: [a] }"),
      identity("{ uid: 1 }"),
      true,
      "- identities.x.launch: a",
    ],
    [
      "another command",
      identity("{ launch: [a, b] }"),
      identity("{ launch: ['a b'] }"),
      true,
      '~ identities.x.launch: a b → "a b"',
    ],
    [
      "another folder",
      identity("{ launch: { command: [a] } }"),
      identity("{ launch: { command: [a], cwd: b } }"),
      true,
      "~ identities.x.launch.cwd",
    ],
    [
      "a variable kept",
      identity("{ launch: [a] }"),
      identity("{ launch: { command: [a], keepEnv: [B] } }"),
      true,
      "~ identities.x.launch.keepEnv",
    ],
    [
      "a variable not kept",
      identity("{ launch: { command: [a], keepEnv: [B] } }"),
      identity("{ launch: [a] }"),
      false,
      "~ identities.x.launch.keepEnv",
    ],
    [
      "a sandbox",
      identity("{ launch: [a] }"),
      identity("{ launch: { command: [a], sandbox: { write: [out] } } }"),
      false,
      "+ identities.x.launch.sandbox",
    ],
    [
      "no sandbox any more",
      identity("{ launch: { command: [a], sandbox: true } }"),
      identity("{ launch: { command: [a], sandbox: false } }"),
      true,
      "- identities.x.launch.sandbox",
    ],
    [
      "a folder to write",
      identity("{ launch: { command: [a], sandbox: true } }"),
      identity("{ launch: { command: [a], sandbox: { write: [out] } } }"),
      true,
      "~ identities.x.launch.sandbox.write",
    ],
    [
      "a folder to read",
      identity("{ launch: { command: [a], sandbox: { write: [out] } } }"),
      identity("{ launch: { command: [a], sandbox: { write: [out], read: [/opt/models] } } }"),
      true,
      "~ identities.x.launch.sandbox.read",
    ],
    [
      "a folder less to write",
      identity("{ launch: { command: [a], sandbox: { write: [out] } } }"),
      identity("{ launch: { command: [a], sandbox: {} } }"),
      false,
      "~ identities.x.launch.sandbox.write",
    ],
    ...(["children: true", "instances: true", "subagents: [x]"] as const).flatMap(
      (more): [string, string, string, boolean, string][] => {
        const [less, wider] = [identity("{ launch: [a] }"), identity(`{ launch: { command: [a], ${more} } }`)];
        const line = `~ identities.x.launch.${more.split(":")[0]}`;
        return [
          [`a launch with ${more}`, less, wider, true, line],
          [`a launch without ${more}`, wider, less, false, line],
        ];
      },
    ),
    ["another service", identity("{ uid: 1 }"), identity("{ uid: 1, service: s }"), true, "+ identities.x.service: s"],
    ["a DNS name", identity("{ uid: 1 }"), identity("{ uid: 1, dnsNames: [b] }"), true, "~ identities.x.dnsNames"],
    [
      "a DNS name less",
      identity("{ uid: 1, dnsNames: [b] }"),
      identity("{ uid: 1 }"),
      false,
      "~ identities.x.dnsNames",
    ],
    ...(
      [
        ["all", "[a.b]", false],
        ["[a.b]", "all", true],
        ["[a.b]", "[a.b, c.d]", true],
        ["[a.b, c.d]", "[c.d]", false],
        ["[a.b]", "[]", false],
        ["[]", "[a.b]", true],
      ] as const
    ).map(([before, after, widens]): [string, string, string, boolean, string] => {
      const [old, next] = [before, after].map((some) =>
        identity(some === "all" ? "{ uid: 1 }" : `{ uid: 1, federatesWith: ${some} }`),
      ) as [string, string];
      return [`federation with ${after} instead of ${before}`, old, next, widens, "~ identities.x.federatesWith"];
    }),
    ["a hint", identity("{ uid: 1 }"), identity("{ uid: 1, hint: b }"), false, "identities.x.hint:"],
    [
      "another order",
      "identities: { x: { uid: 1 }, y: { uid: 1 } }",
      "identities: { y: { uid: 1 }, x: { uid: 1 } }",
      true,
      "~ identities in the order: x, y → y, x",
    ],
    // A service
    ["a service more", "", service("{ http: { unix: a } }"), true, "+ services.s: http: unix:/shop/a"],
    ["a service less", service("{ http: { unix: a } }"), "", false, "- services.s: http: unix:/shop/a"],
    [
      "another place",
      service("{ http: { unix: a } }"),
      service("{ http: http://127.0.0.1:1 }"),
      true,
      "→ http: http://127.0.0.1:1",
    ],
    [
      "another protocol",
      service("{ http: { unix: a } }"),
      service("{ mcp: { unix: a } }"),
      true,
      "~ services.s: http: unix:/shop/a → mcp: unix:/shop/a",
    ],
    [
      "another program",
      service("{ http: { command: [a, b] } }"),
      service("{ http: { command: ['a b'] } }"),
      true,
      "~ services.s",
    ],
    [
      "another port for callers",
      service("{ http: { unix: a } }"),
      service("{ http: { unix: a }, listen: 1 }"),
      false,
      "+ services.s.listen: 1",
    ],
    [
      "a socket for callers",
      service("{ http: { unix: a } }"),
      service("{ http: { unix: a }, listen: { unix: run/b } }"),
      true,
      "+ services.s.listen.unix: /shop/run/b",
    ],
    [
      "no socket for callers",
      service("{ http: { unix: a }, listen: { unix: true } }"),
      service("{ http: { unix: a } }"),
      false,
      "- services.s.listen.unix: in agentid's own folder",
    ],
    [
      "bytes instead of requests",
      service("{ http: http://127.0.0.1:1 }"),
      service("{ tcp: '127.0.0.1:1' }"),
      true,
      "~ services.s: http: http://127.0.0.1:1 → tcp: tcp 127.0.0.1:1",
    ],
    [
      "more connections",
      service("{ tcp: { unix: a } }"),
      service("{ tcp: { unix: a }, connections: { max: 2000 } }"),
      true,
      "~ services.s.connections.max: 1024 → 2000",
    ],
    [
      "a shorter time without bytes",
      service("{ tcp: { unix: a } }"),
      service("{ tcp: { unix: a }, connections: { idle: 5m } }"),
      false,
      "~ services.s.connections.idle: 1h → 5m",
    ],
    // The rest
    ["another folder of policies", "policies: a", "policies: b", true, "~ policies: /shop/a → /shop/b"],
    ["longer lives", lifetimes("{ x509: 10m }"), lifetimes("{ x509: 1h }"), true, "~ lifetimes.x509: 10m → 1h"],
    ["shorter lives", lifetimes("{ jwt: 5m }"), lifetimes("{ jwt: 1m }"), false, "~ lifetimes.jwt: 5m → 1m"],
    ["no more confirmation", "reload: confirm", "reload: auto", true, "~ reload: confirm → auto"],
    ["confirmation", "reload: auto", "reload: confirm", false, "~ reload: auto → confirm"],
    ["keys kept", "keys: memory", "keys: disk", true, "~ keys: memory → disk"],
    ["keys not kept", "keys: disk", "keys: memory", false, "~ keys: disk → memory"],
  ])("%s", (_, old, next, widened, line) => {
    const { changes, ...rest } = compare(old, next);
    expect(rest.widened).toBe(widened);
    expect(changes.join("\n")).toContain(line);
    expect(compare(old, old)).toEqual({ widened: false, changes: [] });
    expect(compare(next, next)).toEqual({ widened: false, changes: [] });
  });

  it("another trust domain widens", () => {
    expect(compareConfigs(parse("trustDomain: a"), parse("trustDomain: b"))).toEqual({
      widened: true,
      changes: ["~ trustDomain: a → b"],
    });
  });

  it("one widening among narrowings widens the whole", () => {
    expect(compare("keys: disk", "keys: memory\nidentities: { x: { uid: 1 } }").widened).toBe(true);
  });
});

describe("locks", () => {
  const digest = (character: string) => character.repeat(64);
  const lock = (files: Record<string, string>, exe = digest("e"), path = "/x"): Lock => ({
    identities: { a: { exe: { path, sha256: exe }, files } },
  });

  it.each([
    ["an entry more", { identities: {} }, lock({}), true, "+ lock.a"],
    ["an entry less", lock({}), { identities: {} }, false, "- lock.a"],
    ["another executable", lock({}), lock({}, digest("f")), true, "~ lock.a.exe.sha256"],
    ["another path", lock({}), lock({}, digest("e"), "/y"), true, "~ lock.a.exe.path: /x → /y"],
    ["a file pinned", lock({}), lock({ f: digest("1") }), false, "+ lock.a.files.f"],
    ["a file no longer pinned", lock({ f: digest("1") }), lock({}), true, "- lock.a.files.f"],
    ["another digest of a file", lock({ f: digest("1") }), lock({ f: digest("2") }), true, "~ lock.a.files.f"],
  ])("%s", (_, old, next, widened, line) => {
    expect(compareLocks(old, next)).toMatchObject({ widened, changes: [expect.stringContaining(line)] });
    expect(compareLocks(next, next)).toEqual({ widened: false, changes: [] });
  });
});

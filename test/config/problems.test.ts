import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { runs } from "../properties.js";
import { problemsOf } from "./project.js";

describe("every problem of a file at once", () => {
  it("names file, line, column, path and the nearest valid choice, in the order of the file", () => {
    expect(
      problemsOf(`trustDomain: Shop.local
identities:
  agents/biling:
    lanch: [python, a.py]
  agents/planner: { service: paymnts }
services:
  payments: { mcp: { comand: [node] } }
outside: {}
reload: confrim
`),
    ).toEqual([
      'agentid.yaml:1:14  trustDomain: trust domain may hold only a-z, 0-9, dot, dash and underscore, not "S": "Shop.local"; did you mean "shop.local"?',
      'agentid.yaml:4:5  identities.agents/biling.lanch: unknown key "lanch"; did you mean "launch"?',
      'agentid.yaml:5:30  identities.agents/planner.service: no service "paymnts"; did you mean "payments"?',
      'agentid.yaml:7:22  services.payments.mcp.comand: unknown key "comand"; did you mean "command"?',
      'agentid.yaml:8:1  outside: unknown key "outside"; known here: trustDomain, identities, services, egress, proxy, secrets, policies, policy, lifetimes, upstreamAuthority, federation, oidc, authzen, telemetry, durable, reload, …',
      'agentid.yaml:9:9  reload: must be confirm or auto; did you mean "confirm"?',
    ]);
  });

  it("two letters changed over are one slip, in short names too", () => {
    expect(problemsOf("trustDomain: a\nidentities: { x: { udi: 1 }, y: { idu: 1 } }\n")).toEqual([
      expect.stringMatching(/unknown key "udi"; did you mean "uid"\?$/),
      expect.stringMatching(/unknown key "idu"; known here: /),
    ]);
  });

  it("says the first hundred of thousands in words, in time that grows with the file and not with its square", () => {
    const entries = (count: number, key: string) =>
      `trustDomain: a\nidentities:\n${Array.from({ length: count }, (_, i) => `  x${i}: { ${key}: 1 }\n`).join("")}`;
    expect(problemsOf(entries(4000, "uid"))).toEqual([]);
    const said = problemsOf(entries(4000, "uidd"));
    expect(said).toHaveLength(101);
    expect(said.at(-1)).toBe("… and 3900 more");
  });

  it("keeps quiet where nothing is wrong", () => {
    expect(problemsOf("trustDomain: shop.local\n")).toEqual([]);
  });
});

/** In the words of the file: what stands there, what is said of it, and what may stand there instead. */
const VALUES: readonly (readonly [at: string, wrong: string, said: RegExp, right: string])[] = [
  ["trustDomain: _", "spiffe://shop.local", /write the name only, "shop.local"/, "shop.local"],
  ["trustDomain: _", "a".repeat(256), /longer than 255/, "a".repeat(255)],
  ["trustDomain: _", "[shop]", /must be text, not a list/, "shop"],
  ["trustDomain: _", "'sh\u{43e}p'", /may hold only/, "shop"],
  ["identities: { _: { uid: 1 } }", "/agents/x", /without the leading slash, "agents\/x"/, "agents/x"],
  ["identities: { _: { uid: 1 } }", "'spiffe://a/x'", /only the path/, "x"],
  ["identities: { _: { uid: 1 } }", "a/../b", /must not hold/, "a/..b"],
  ["identities: { _: { uid: 1 } }", "a//b", /empty segment/, "a/b"],
  ["identities: { _: { uid: 1 } }", "a/", /end with a slash/, "a"],
  ["identities: { _: { uid: 1 } }", "'a b'", /only letters/, "a_b"],
  ["identities: { _: { uid: 1 } }", "__proto__", /cannot be used/, "constructor"],
  ["identities: { x: _ }", "", /has no value/, "{ uid: 1 }"],
  ["identities: { x: _ }", "{}", /nothing says which process/, "{ uid: 0 }"],
  ["identities: { x: _ }", "{ dnsNames: [a], hint: b }", /nothing says which process/, "{ dnsNames: [a], user: b }"],
  ["identities: _", "[a]", /must be a mapping, not a list/, "{}"],
  ["identities: { x: { systemdUnit: _ } }", "cron", /full name, as cron.service/, "cron.service"],
  ["identities: { x: { systemdUserUnit: _ } }", "a/b.service", /full name/, "b.service"],
  ["identities: { x: { cgroup: _ } }", "system.slice", /the whole path/, "/system.slice"],
  ["identities: { x: { containerId: _ } }", "'0123abc'", /all 64/, `'${"0a".repeat(32)}'`],
  ["identities: { x: { podUid: _ } }", "'12'", /not the UID of a pod/, "8c2f1e6a-3a53-4d53-a4b0-1f0a9b7c6d5e"],
  ["identities: { x: { parentExe: _ } }", "{}", /needs path or sha256/, "{ path: /a }"],
  ["identities: { x: { parentExe: { sha256: _ } } }", "pinned", /64 lower-case/, `'${"0a".repeat(32)}'`],
  ["identities: { x: { signature: _ } }", "{}", /needs team or identifier/, "{ identifier: a }"],
  ["identities: { x: { signature: { team: _ } } }", "apple", /ten capital/, "9JA89QQLNQ"],
  ["identities: { x: { uid: _ } }", "-1", /must be 0 or more/, "0"],
  ["identities: { x: { uid: _ } }", "4294967295", /must be 4294967294 or less/, "4294967294"],
  ["identities: { x: { uid: _ } }", "1.5", /must be a whole number, not a fraction/, "1"],
  ["identities: { x: { uid: _ } }", "dev", /must be a number, not text/, "1000"],
  ["identities: { x: { user: _ } }", "1000", /not a number; write it in quotes/, "'1000'"],
  ["identities: { x: { user: _ } }", "'a:b'", /not the name of a user/, "ab"],
  ["identities: { x: { group: _ } }", "''", /not the name of a group/, "g"],
  ["identities: { x: { supplementaryGroup: _ } }", "'a b'", /not the name of a group/, "g"],
  ["identities: { x: { launch: _ } }", "[]", /must not be empty/, "[a]"],
  ["identities: { x: { launch: _ } }", "['']", /command's name is empty/, "[a, '']"],
  ["identities: { x: { launch: _ } }", "[node, 3]", /launch\[1\]: must be text, not a number/, "[node, '3']"],
  ["identities: { x: { launch: _ } }", "node a.js", /must be a list or a mapping, not text/, "[node, a.js]"],
  ["identities: { x: { launch: _ } }", "{ cwd: a }", /launch.command: is missing/, "{ command: [a], cwd: a }"],
  ["identities: { x: { launch: _ } }", '["a\\0b"]', /zero byte/, "[ab]"],
  ["identities: { x: { launch: { command: [a], keepEnv: [_] } } }", "A=B", /not the name of an env/, "A_B"],
  ["identities: { x: { launch: { command: [a], cwd: _ } } }", "~/x", /not expanded/, "x"],
  ["identities: { x: { launch: { command: [a], children: _ } } }", "1", /must be true or false, not a number/, "true"],
  ["identities: { x: { launch: { command: [a], subagents: [_] } } }", "y", /subagents\[0\]: no identity "y"/, "x"],
  [
    "identities: { x: { launch: { command: [a], subagents: [y] } }, y: { _ } }",
    "uid: 1",
    /y has no launch, so nobody can launch it/,
    "launch: [a]",
  ],
  [
    "identities: { x: { launch: { command: [a], instances: true } }, _: { uid: 1 } }",
    "x/y",
    /name of an instance of x, which has instances/,
    "y/x",
  ],
  ["identities: { x: { exe: _ } }", "node", /write the path of the file, as in \/usr\/bin\/node/, "./node"],
  ["identities: { x: { exe: _ } }", "~/node", /not expanded/, "/node"],
  ["identities: { x: { exe: _ } }", "{}", /needs path or sha256/, "{ path: ./a, sha256: pinned }"],
  ["identities: { x: { exe: { sha256: pinned _ } } }", "", /exe: a pinned digest needs the path/, ", path: /a"],
  ["identities: { x: { exe: { sha256: pinned } _ } }", "", /exe: a pinned digest needs the path/, ", launch: [a]"],
  ["identities: { x: { exe: { sha256: _ } } }", "ABCD", /64 lower-case hex/, `"${"ab".repeat(32)}"`],
  ["identities: { x: { uid: 1, dnsNames: [_] } }", "'*.a.b'", /wildcards/, "a.b"],
  ["identities: { x: { uid: 1, dnsNames: [_] } }", "A.b", /not a DNS name/, "a.b"],
  ["identities: { x: { uid: 1, federatesWith: [_] } }", "Bank.local", /may hold only a-z/, "bank.local"],
  [
    "identities: { x: _ }",
    "{ federatesWith: [a.b] }",
    /nothing says which process/,
    "{ federatesWith: [a.b], user: b }",
  ],
  ["identities: { x: { uid: 1, hint: _ } }", '"\\e[31m"', /printable/, "red"],
  ["services: { _: { http: 'http://127.0.0.1:1' } }", "Pay", /only a-z/, "pay"],
  ["services: { _: { http: 'http://127.0.0.1:1' } }", "pay_ments", /only a-z/, "pay-ments"],
  ["services: { s: _ }", "{}", /exactly one of http, mcp, grpc and tcp/, "{ http: { unix: a } }"],
  ["services: { s: _ }", "{ grpc: { unix: a }, http: { unix: a } }", /exactly one of/, "{ grpc: { unix: a } }"],
  [
    "services: { s: _ }",
    "{ grpc: { unix: a, command: [b] } }",
    /exactly one of command, unix/,
    "{ grpc: { command: [b] } }",
  ],
  ["services: { s: _ }", "{ grpc: 'http://10.0.0.1:5' }", /leave this machine/, "{ grpc: 'http://127.0.0.1:5' }"],
  ["services: { s: _ }", "{ http: { unix: a }, mcp: { unix: a } }", /exactly one of/, "{ mcp: { unix: a } }"],
  ["services: { s: { http: _ } }", "{ unix: a, mtls: 'a:1' }", /exactly one of command/, "{ mtls: 'a:1' }"],
  ["services: { s: { http: _ } }", "{ unix: a, cwd: b }", /cwd: goes only with command/, "{ command: [a], cwd: b }"],
  ["services: { s: { http: _ } }", "https://127.0.0.1", /mtls/, "http://127.0.0.1"],
  ["services: { s: { http: _ } }", "http://example.com", /would leave this machine/, "http://localhost"],
  ["services: { s: { http: _ } }", "http://127.0.0.1.example.com", /would leave this machine/, "http://127.0.0.2"],
  ["services: { s: { http: _ } }", "http://0.0.0.0:80", /would leave this machine/, "'http://[::1]:80'"],
  ["services: { s: { http: _ } }", "http://u:p@127.0.0.1", /user name or password/, "http://127.0.0.1:81"],
  ["services: { s: { http: _ } }", "http://127.0.0.1/x", /write only http:\/\/127.0.0.1;/, "http://127.0.0.1/"],
  ["services: { s: { http: _ } }", "ftp://127.0.0.1", /only http/, "http://127.0.0.1"],
  ["services: { s: { http: _ } }", "127.0.0.1:80", /not a URL|only http/, "http://127.0.0.1:80"],
  ["services: { s: { http: { unix: _ } } }", "a".repeat(104), /longer than the 103 bytes/, "a".repeat(103)],
  ["services: { s: { http: { unix: _ } } }", "unix:///a", /without "unix:"/, "/a"],
  ["services: { s: { http: { mtls: _ } } }", "host", /not host:port/, "'host:1'"],
  ["services: { s: { http: { mtls: _ } } }", "'host:0'", /from 1 to 65535/, "'host:65535'"],
  ["services: { s: { http: { mtls: _ } } }", "'https://host:1'", /host:port only/, "'[::1]:1'"],
  ["services: { s: { http: { unix: a }, listen: _ } }", "0", /must be 1 or more/, "1"],
  ["services: { s: { http: { unix: a }, listen: _ } }", "65536", /must be 65535 or less/, "65535"],
  ["services: { s: { tcp: _ } }", "http://127.0.0.1:5432", /host:port only/, "'127.0.0.1:5432'"],
  ["services: { s: { tcp: _ } }", "127.0.0.1", /not host:port/, "'127.0.0.1:5432'"],
  ["services: { s: { tcp: _ } }", "'127.0.0.1:0'", /from 1 to 65535/, "'[::1]:1'"],
  ["services: { s: { tcp: _ } }", "'db.example:5432'", /would leave this machine/, "'localhost:5432'"],
  ["services: { s: { tcp: _ } }", "'127.0.0.1.example.com:1'", /would leave this machine/, "'127.1.2.3:1'"],
  ["services: { s: { tcp: _ } }", "'127.0.0.01:1'", /would leave this machine/, "'127.0.0.1:1'"],
  ["services: { s: { tcp: _ } }", "'127.256.0.1:1'", /would leave this machine/, "'127.255.0.1:1'"],
  ["services: { s: { tcp: _ } }", "'0.0.0.0:1'", /would leave this machine/, "{ unix: a }"],
  ["services: { s: { tcp: _ } }", "{ unix: a, mtls: 'a:1' }", /exactly one of command/, "{ mtls: 'a:1' }"],
  ["services: { s: { tcp: { unix: a } _ } }", ", http: { unix: b }", /exactly one of/, ""],
  ["services: { s: { tcp: { unix: a }, connections: _ } }", "{ max: 0 }", /must be 1 or more/, "{ max: 1 }"],
  ["services: { s: { tcp: { unix: a }, connections: _ } }", "{ idle: 5 }", /must be text/, "{ idle: 5m }"],
  ["services: { s: { tcp: { unix: a }, connections: _ } }", "{ idle: never }", /not a duration/, "{ idle: 90s }"],
  ["services: { s: { _: { unix: a }, connections: { max: 1 } } }", "http", /connections: goes only with tcp/, "tcp"],
  ["services: { s: { tcp: { unix: a }, listen: _ } }", "{}", /needs port, unix or both/, "{ unix: true }"],
  ["services: { s: { tcp: { unix: a }, listen: _ } }", "{ unix: false }", /listen.unix/, "{ unix: b, port: 1 }"],
  [
    "services: { s: { http: { unix: a }, listen: _ } }",
    "{ unix: a }",
    /already the socket of services.s.http/,
    "{ unix: b }",
  ],
  ["services: { s: { http: { unix: a }, listen: _ } }", "{ unix: ./a }", /already the socket of/, "{ unix: ./b }"],
  [
    "services: { s: { http: { unix: a }, listen: { unix: x } }, t: { tcp: { unix: b }, listen: { unix: _ } } }",
    "x",
    /x is already the socket of services.s/,
    "y",
  ],
  [
    "services: { s: { http: { unix: a }, listen: 7 }, t: { tcp: { unix: b }, listen: { port: _ } } }",
    "7",
    /listen.port: port 7 is already that of services.s/,
    "8",
  ],
  ["lifetimes: { x509: _ }", "9s", /at least 10s/, "10s"],
  ["lifetimes: { x509: _ }", "10", /must be text/, "10m"],
  ["lifetimes: { x509: _ }", "10min", /not a duration/, "10m"],
  ["lifetimes: { x509: _ }", "13h", /x509 \(13h\) must be at most half of ca \(24h by default\)/, "12h"],
  ["lifetimes: { jwt: _, ca: 30s }", "20s", /jwt \(20s\) must be at most half of ca \(30s\)/, "15s, x509: 15s"],
  ["lifetimes: { ca: _ }", "19m", /x509 \(10m by default\) must be at most half of ca \(19m\)/, "20m"],
  ["lifetimes: { ca: _ }", "31d", /at most 720h/, "30d"],
  ["telemetry: { otlp: _ }", "collector:4318", /https:\/\/ or http:\/\//, "http://127.0.0.1:4318"],
  ["telemetry: { otlp: _ }", "http://collector.example:4318", /would leave this machine/, "https://collector.example"],
  [
    "telemetry: { otlp: _ }",
    "https://u:p@collector.example",
    /user name or password/,
    "https://collector.example/otel",
  ],
  ["telemetry: { otlp: _ }", "http://localhost:4318/?a=b", /write only/, "http://localhost:4318/"],
  ["reload: _", "maybe", /must be confirm or auto/, "auto"],
  ["keys: _", "yes", /must be disk or memory/, "memory"],
  ["policies: _", "''", /not a path/, "rules"],
];

describe("values", () => {
  it.each(VALUES)("%s with %s", (at, wrong, said, right) => {
    const file = (value: string) =>
      `${at.startsWith("trustDomain") ? "" : "trustDomain: a\n"}${at.replace("_", () => value)}\n`;
    expect(problemsOf(file(right))).toEqual([]);
    const problems = problemsOf(file(wrong));
    expect(problems.join("\n")).toMatch(said);
    for (const problem of problems) expect(problem).toMatch(/^agentid\.yaml:[12]:\d+ {2}\S/);
  });
});

describe("what entries say of each other", () => {
  const file = (identities: string, services: string) =>
    `trustDomain: a\nidentities: {${identities}}\nservices: {${services}}\n`;

  it("one service has one identity", () => {
    const services = "s: { http: { unix: a } }, t: { http: { unix: b } }";
    expect(problemsOf(file("x: { service: s }, y: { service: t }", services))).toEqual([]);
    expect(problemsOf(file("x: { service: s }, y: { service: s }", services)).join()).toMatch(
      /identities.y.service: the service "s" already speaks as x/,
    );
  });

  it("a service's own identity is not somebody else's", () => {
    const services = "pay: { mcp: { unix: a } }";
    expect(problemsOf(file("mcp/pay: { service: pay }", services))).toEqual([]);
    expect(problemsOf(file("services/pay: { uid: 1 }", services))).toEqual([]);
    expect(problemsOf(file("mcp/pay: { uid: 1 }", services)).join()).toMatch(/say so with `service: pay`/);
  });

  it("two services do not share a port", () => {
    const services = (port: number) => `s: { http: { unix: a }, listen: 1 }, t: { http: { unix: a }, listen: ${port} }`;
    expect(problemsOf(file("", services(2)))).toEqual([]);
    expect(problemsOf(file("", services(1))).join()).toMatch(/port 1 is already that of services.s/);
  });

  it("a default identity's name is a valid one for every valid service name", () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/), (name) => {
        expect(problemsOf(file("", `"${name}": { http: { unix: a } }`))).toEqual([]);
      }),
      { numRuns: runs(50) },
    );
  });
});

describe("YAML", () => {
  it.each([
    ["duplicate keys", "trustDomain: a\ntrustDomain: b\n", /agentid.yaml:2:1 {2}.*unique/],
    [
      "duplicate identities",
      "trustDomain: a\nidentities:\n  x: { uid: 1 }\n  'x': { uid: 2 }\n",
      /:4:3 {2}.*"x" is there twice.*unique/,
    ],
    ["a key three times", "a: 1\na: 1\na: 1\n", /:2:1 .*\n.*:3:1 /],
    ["broken syntax", "trustDomain: [a\n", /agentid.yaml:\d:\d/],
    ["two documents", "trustDomain: a\n---\ntrustDomain: b\n", /multiple documents/],
    ["unknown tags", "trustDomain: !!js/function a\n", /agentid.yaml:1:14 {2}unresolved tag/],
    ["merge keys", "trustDomain: a\nkeys: &k { uid: 1 }\nidentities: { x: { <<: *k } }\n", /unknown key "<<"/],
    ["an empty file", "", /the file is empty/],
    ["a list", "- a\n", /must be a mapping, not a list/],
    ["no trust domain", "keys: disk\n", /trustDomain: is missing/],
    ["nesting without end", `trustDomain: ${"[".repeat(100_000)}`, /agentid.yaml:\d+:\d+ {2}/],
    [
      "aliases without end",
      `trustDomain: a\na: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [${"*a,".repeat(10)}]\nc: &c [${"*b,".repeat(10)}]\nd: [${"*c,".repeat(10)}]\n`,
      /alias/,
    ],
  ])("%s", (_, text, said) => {
    expect(problemsOf(text).join("\n")).toMatch(said);
  });

  it("1.2: yes, no, on, off and 0o-less octals are what they look like", () => {
    expect(problemsOf("trustDomain: a\nidentities: { x: { user: no, group: on } }\n")).toEqual([]);
  });

  it("an anchor used once is fine", () => {
    expect(problemsOf("trustDomain: a\nidentities: { x: { launch: &l [a] }, y: { launch: *l } }\n")).toEqual([]);
  });

  it("never throws anything but a ConfigError, whatever the file holds", () => {
    const piece = fc.constantFrom(
      ..."trustDomain|identities|services|launch|http|mcp|exe|lifetimes|:| |\n|\n  |{|}|[|]|,|-|&a|*a|!!x|'|\"|#|__proto__|0|1e999|~|%|---|\t|\u0000|\u202e".split(
        "|",
      ),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        problemsOf(pieces.join(""));
        problemsOf(`trustDomain: a\n${pieces.join("")}`);
      }),
      { numRuns: runs(400) },
    );
  });
});

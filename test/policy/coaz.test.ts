import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { coazMapping, coazQuestion } from "../../src/policy/coaz.js";
import { runs } from "../properties.js";

const claims = {
  sub: "spiffe://shop.local/agents/billing",
  aud: "spiffe://shop.local/mcp/payments",
  client_id: "agent-1",
};
const subject = { type: "identity", id: claims.sub };
const server = { type: "mcp_server", id: claims.aud };

const asks = (method: string, params: Record<string, unknown>, resource: object, context: object = {}) => ({
  method,
  params,
  request: { subject, action: { name: method }, resource, context: { agent: "agent-1", ...context } },
});

describe("the default mappings of COAZ-MCP", () => {
  it.each([
    asks("initialize", { protocolVersion: "2025-11-25" }, server, { protocol_version: "2025-11-25" }),
    asks("tools/list", {}, server),
    asks("tools/call", { name: "get_invoice", arguments: { invoice: 1 } }, { type: "tool", id: "get_invoice" }),
    asks("resources/list", {}, server),
    asks("resources/read", { uri: "file:///a" }, { type: "resource", id: "file:///a" }),
    asks("resources/subscribe", { uri: "file:///a" }, { type: "resource", id: "file:///a" }),
    asks("resources/unsubscribe", { uri: "file:///a" }, { type: "resource", id: "file:///a" }),
    asks("prompts/list", {}, server),
    asks("prompts/get", { name: "greet" }, { type: "prompt", id: "greet" }),
    asks("completion/complete", { ref: { type: "ref/prompt", name: "greet" } }, { type: "prompt", id: "greet" }),
    asks("completion/complete", { ref: { type: "ref/resource", uri: "a:b" } }, { type: "resource", id: "a:b" }),
    asks("logging/setLevel", { level: "debug" }, server, { level: "debug" }),
    asks("tasks/list", {}, server),
    asks("tasks/get", { taskId: "t1" }, { type: "task", id: "t1" }),
    asks("tasks/result", { taskId: "t1" }, { type: "task", id: "t1" }),
    asks("tasks/cancel", { taskId: "t1" }, { type: "task", id: "t1" }),
    asks("server/discover", {}, server),
    asks("subscriptions/listen", {}, server),
  ])("$method", ({ method, params, request }) => {
    expect(coazMapping({ id: 1, method, params }, claims)).toEqual({ outcome: "ask", request });
  });

  it("leaves the agent out where the token names none", () => {
    const mapped = coazMapping({ id: 1, method: "tools/list" }, { sub: claims.sub, aud: claims.aud });
    expect(mapped).toMatchObject({ outcome: "ask", request: { context: {} } });
  });

  it("takes the one audience that is this server", () => {
    const list = { id: 1, method: "tools/list" };
    const several = { ...claims, aud: ["https://other", claims.aud] };
    expect(coazMapping(list, several, claims.aud)).toMatchObject({ outcome: "ask", request: { resource: server } });
    expect(coazMapping(list, several)).toMatchObject({ outcome: "mapping-error" });
    expect(coazMapping(list, several, "https://a-third")).toMatchObject({ outcome: "mapping-error" });
    expect(coazMapping(list, { ...claims, aud: [claims.aud, claims.aud] }, claims.aud)).toMatchObject({
      outcome: "mapping-error",
    });
    expect(coazMapping(list, { ...claims, aud: 7 })).toMatchObject({ outcome: "mapping-error" });
  });

  it("passes ping and notifications through, and nothing that only looks like one", () => {
    expect(coazMapping({ id: 1, method: "ping" }, {})).toEqual({ outcome: "pass-through" });
    expect(coazMapping({ method: "notifications/initialized" }, {})).toEqual({ outcome: "pass-through" });
    expect(coazMapping({ id: 1, method: "notifications/initialized" }, claims)).toMatchObject({ outcome: "deny" });
    // A call without an id must not become a notification.
    const call = { method: "tools/call", params: { name: "refund" } };
    expect(coazMapping(call, claims)).toMatchObject({ outcome: "deny" });
    expect(coazMapping({ id: 1, ...call }, claims)).toMatchObject({ outcome: "ask" });
  });

  it("denies what it does not know", () => {
    for (const method of [
      "sampling/createMessage",
      "Tools/call",
      "tools/call ",
      "tools/call\0",
      "",
      "__proto__",
      "notifications",
    ]) {
      expect(coazMapping({ id: 1, method }, claims)).toMatchObject({ outcome: "deny" });
    }
  });

  it("is a mapping error where a parameter or a claim is missing", () => {
    for (const [method, params] of [
      ["tools/call", {}],
      ["tools/call", { name: 7 }],
      ["tools/call", { name: "" }],
      ["resources/read", { name: "x" }],
      ["completion/complete", {}],
      ["completion/complete", { ref: { type: "ref/prompt", uri: "x" } }],
      ["tasks/get", {}],
      ["logging/setLevel", {}],
      ["initialize", {}],
    ] as const) {
      expect(coazMapping({ id: 1, method, params }, claims), method).toMatchObject({ outcome: "mapping-error" });
    }
    const { sub: _, ...nobody } = claims;
    expect(coazMapping({ id: 1, method: "tools/list" }, nobody)).toMatchObject({ outcome: "mapping-error" });
  });

  it("never asks about another subject than the token's, and lets nothing else proceed without a decision", () => {
    fc.assert(
      fc.property(fc.string(), fc.option(fc.nat(), { nil: undefined }), fc.object(), (method, id, params) => {
        const mapped = coazMapping({ ...(id !== undefined && { id }), method, params }, claims);
        if (mapped.outcome === "ask") expect(mapped.request.subject.id).toBe(claims.sub);
        if (mapped.outcome === "pass-through") {
          expect(method === "ping" || (method.startsWith("notifications/") && id === undefined)).toBe(true);
        }
      }),
      { numRuns: runs(500) },
    );
  });
});

describe("our relay's questions for another decision point", () => {
  const subject = { type: "spiffe", id: claims.sub, properties: { evidence: "launch" } };

  it("names caller, tool, server and arguments", () => {
    const question = coazQuestion({
      subject,
      action: { name: "tools/call" },
      resource: { type: "mcp-tool", id: claims.aud, properties: { tool: "refund" } },
      context: { args: { amount: 5 } },
    });
    expect(question).toEqual({
      outcome: "ask",
      request: {
        subject: { type: "identity", id: claims.sub, properties: { evidence: "launch" } },
        action: { name: "tools/call" },
        resource: { type: "tool", id: "refund" },
        context: { agent: claims.sub, args: { amount: 5 }, server: claims.aud },
      },
    });
  });

  it("asks nothing about what is not MCP, and nothing of a caller without identity", () => {
    const http = { subject, action: { name: "http:GET" }, resource: { type: "http", id: claims.aud } };
    expect(coazQuestion(http)).toMatchObject({ outcome: "deny" });
    const nobody = {
      subject: { type: "none", id: "" },
      action: { name: "tools/list" },
      resource: { type: "mcp", id: claims.aud },
    };
    expect(coazQuestion(nobody)).toMatchObject({ outcome: "mapping-error" });
  });
});

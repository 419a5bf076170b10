import { expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { decisionsWith } from "./shop.js";

/** The fixture of the AuthZEN 1.0 certification scenario, as rules and entities. */
const ENTITIES = `entities:
  - { type: user, id: alice }
  - { type: user, id: bob, properties: { role: admin } }
  - { type: record, id: record-1, properties: { status: active } }
  - { type: record, id: record-2, properties: { status: archived } }
`;
const RULES = `rules:
  - name: everybody-reads
    allow: { subject: { type: user }, action: read, resource: { type: record } }

  - name: alice-writes
    allow: { subject: { type: user, id: alice }, action: write, resource: { type: record } }

  - name: admins-write-archived
    allow:
      subject: { type: user, properties: { role: admin } }
      action: write
      resource: { type: record, properties: { status: archived } }

  - name: alice-deletes-softly
    allow:
      subject: { type: user, id: alice }
      action: { name: delete, properties: { soft: true } }
      resource: { type: record }

  - name: archived-is-closed
    deny: { subject: { type: user }, action: [write, delete], resource: { type: record, properties: { status: archived } } }
    when: "!(has(subject.properties.role) && subject.properties.role == 'admin')"
`;

const ask = (
  subject: string,
  action: string,
  record: string,
  more: { subject?: object; action?: object; resource?: object } = {},
): AccessRequest => ({
  subject: { type: "user", id: subject, ...(more.subject !== undefined && { properties: { ...more.subject } }) },
  action: { name: action, ...(more.action !== undefined && { properties: { ...more.action } }) },
  resource: { type: "record", id: record, ...(more.resource !== undefined && { properties: { ...more.resource } }) },
});

test.each([
  ["1 alice reads record-1", ask("alice", "read", "record-1"), true, "everybody-reads"],
  ["2 alice writes record-1", ask("alice", "write", "record-1"), true, "alice-writes"],
  ["3 bob reads record-1", ask("bob", "read", "record-1"), true, "everybody-reads"],
  ["4 bob does not write record-1", ask("bob", "write", "record-1"), false, "admins-write-archived"],
  [
    "5 alice does not write what is archived, by the request's word",
    ask("alice", "write", "record-1", { resource: { status: "archived" } }),
    false,
    "archived-is-closed",
  ],
  [
    "5 alice does not write what is archived, by the file's",
    ask("alice", "write", "record-2"),
    false,
    "archived-is-closed",
  ],
  [
    "6 an admin by the request's word writes what is archived",
    ask("carol", "write", "record-9", { subject: { role: "admin" }, resource: { status: "archived" } }),
    true,
    "admins-write-archived",
  ],
  ["6 bob writes record-2", ask("bob", "write", "record-2"), true, "admins-write-archived"],
  [
    "7 alice deletes softly",
    ask("alice", "delete", "record-1", { action: { soft: true } }),
    true,
    "alice-deletes-softly",
  ],
  [
    "8 alice does not delete for good",
    ask("alice", "delete", "record-1", { action: { soft: false } }),
    false,
    "alice-deletes-softly",
  ],
  ["alice does not delete without a word", ask("alice", "delete", "record-1"), false, "alice-deletes-softly"],
  ["bob deletes nothing", ask("bob", "delete", "record-1", { action: { soft: true } }), false, "default"],
  [
    "a subject of no known type",
    { ...ask("alice", "read", "record-1"), subject: { type: "bot", id: "alice" } },
    false,
    "default",
  ],
  [
    "a resource of no known type",
    { ...ask("alice", "read", "x"), resource: { type: "file", id: "x" } },
    false,
    "default",
  ],
])("%s", (_what, request, allowed, rule) => {
  const decisions = decisionsWith({ entities: ENTITIES }, RULES);
  const decision = decisions.decide(request);
  expect({ allowed: decision.allowed, rule: decision.rule }).toEqual({ allowed, rule });
});

test("the reasons name subject and resource, and what was looked at is kept", () => {
  const decisions = decisionsWith({ entities: ENTITIES }, RULES);
  expect(decisions.decide(ask("bob", "delete", "record-1")).reason).toBe(
    "no rule allows user bob delete of record record-1",
  );
  const refused = decisions.decide(ask("bob", "write", "record-1"));
  expect(refused.reason).toBe('admins-write-archived needs resource.status archived: it is "active"');
  expect(refused.values).toMatchObject({ "subject.properties.role": "admin", "resource.properties.status": "active" });
  const { considered } = decisions.explain(ask("carol", "write", "record-1"));
  expect(considered.find(({ rule }) => rule === "admins-write-archived")).toMatchObject({
    outcome: "fact-missing",
    detail: "subject.role admin: nobody said the property role of the subject",
  });
});

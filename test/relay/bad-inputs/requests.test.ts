import { expect, it } from "vitest";
import { describeTable, KINDS } from "./table.js";
import type { ListenerKind } from "./vector.js";

/** Every class of bad input at every listener that it concerns, over raw sockets: the legs of services, and what reads HTTP beside them. */
const HERE: readonly ListenerKind[] = ["http service", "MCP service", "AuthZEN", "documents", "control API"];
/** In other-listeners.test.ts. */
const THERE: readonly ListenerKind[] = ["egress target", "WebSocket", "CONNECT proxy", "gRPC", "TCP", "TCP over TLS"];

it("no kind of listener is left out", () => {
  expect([...HERE, ...THERE].toSorted()).toEqual(Object.keys(KINDS).toSorted());
});

describeTable(HERE);

import { describeTable } from "./table.js";

/** The table of bad inputs at the ways in that speak something else than plain HTTP/1.1, or lead elsewhere than to a service. */
describeTable(["egress target", "WebSocket", "CONNECT proxy", "gRPC", "TCP", "TCP over TLS"]);

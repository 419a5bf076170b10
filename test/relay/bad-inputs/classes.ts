import { browser } from "./browser.js";
import { connectRequests } from "./connect.js";
import { connections } from "./connections.js";
import { framing } from "./framing.js";
import { handshakes } from "./handshakes.js";
import { hopByHop } from "./hop-by-hop.js";
import { hostConfusion } from "./host-confusion.js";
import { http2Heads } from "./http2.js";
import { jsonDifferentials } from "./json-differentials.js";
import { mcpMessages } from "./mcp-messages.js";
import { pathConfusion } from "./path-confusion.js";
import { spoofedIdentity } from "./spoofed-identity.js";
import type { VectorClass } from "./vector.js";

/** What is wrong with a request. */
export const requestClasses: readonly VectorClass[] = [
  pathConfusion,
  hostConfusion,
  framing,
  hopByHop,
  spoofedIdentity,
  jsonDifferentials,
  mcpMessages,
  browser,
  handshakes,
  connectRequests,
  http2Heads,
  connections,
];

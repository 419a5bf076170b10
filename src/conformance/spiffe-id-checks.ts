import { status } from "@grpc/grpc-js";
import { SpiffeWorkloadAPIService as Api } from "../workload-api/generated/workload.js";
import { type Check, skip } from "./check.js";
import type { Context } from "./context.js";
import { described, statusOf } from "./probe.js";
import { AUDIENCE } from "./token-parts.js";
import { ownTrustDomains } from "./x509-checks.js";

/** IDs that are not SPIFFE IDs, and IDs that are although they look odd; `td` stands for our own trust domain. */
interface Vectors {
  readonly refuse: readonly string[];
  readonly read: readonly string[];
}

/**
 * FetchJWTSVID is asked for each: InvalidArgument says that it is no SPIFFE ID, PermissionDenied that it is one, of somebody else.
 * The control is our own ID, for which there is a token.
 */
function vectors({ refuse, read }: Vectors): Check["run"] {
  return async (context: Context) => {
    const [name] = ownTrustDomains(context);
    const ask = (spiffeId: string) => context.probe.ask(Api.fetchJwtsvid, { audience: [AUDIENCE], spiffeId });
    const control = await ask(context.svids()[0]?.spiffeId ?? "");
    if (!control.ok) skip(`our own SPIFFE ID is answered with ${described(control)}: JR-4`);
    const problems: string[] = [];
    for (const [ids, expected] of [
      [refuse, status.INVALID_ARGUMENT],
      [read, status.PERMISSION_DENIED],
    ] as const) {
      for (const id of ids.map((one) => one.replace("//td", `//${name}`))) {
        const answer = await ask(id);
        if (statusOf(answer) === expected) continue;
        const shown = id.length > 80 ? `an ID of ${Buffer.byteLength(id)} bytes` : JSON.stringify(id);
        problems.push(`${shown} is answered with ${described(answer)}, not ${status[expected]}`);
      }
    }
    return problems;
  };
}

export const spiffeIdChecks: readonly Check[] = [
  {
    id: "ID-1",
    level: "M",
    sentence: "The scheme is spiffe and the trust domain is not empty",
    source: "ID §2",
    run: vectors({
      refuse: ["spiffe://", "spiffe:///path", "http://td/a", "spiffe:/td/a", "td/a", "/a", " spiffe://td/a"],
      read: ["spiffe://td/conformance"],
    }),
  },
  {
    id: "ID-2",
    level: "M",
    sentence: "The trust domain holds only a-z, 0-9, dot, dash and underscore, whatever it looks like",
    source: "ID §2.1",
    run: vectors({
      refuse: ["spiffe://TRUST.example/a", "spiffe://trüst.example/a", "spiffe://[::1]/a", "spiffe://a!b/a"],
      read: ["spiffe://10.0.0.1/x", "spiffe://a_b-c.1/x"],
    }),
  },
  {
    id: "ID-3",
    level: "M",
    sentence: "No userinfo, port, query, fragment or percent-encoding",
    source: "ID §2.1, §2.2",
    run: vectors({
      refuse: [
        ...["spiffe://u@trust.example/a", "spiffe://trust.example:80/a", "spiffe://t%64.example/a"],
        ...["spiffe://td/a?q", "spiffe://td/a#f", "spiffe://td/%61"],
      ],
      read: ["spiffe://td/conformance/a"],
    }),
  },
  {
    id: "ID-4",
    level: "M",
    sentence: "Path segments hold only letters, digits, dot, dash and underscore; none is empty, `.` or `..`",
    source: "ID §2.2",
    run: vectors({
      refuse: ["spiffe://td//a", "spiffe://td/./a", "spiffe://td/a/..", "spiffe://td/a!b", "spiffe://td/é"],
      read: ["spiffe://td/...", "spiffe://td/a/B.c-d_e"],
    }),
  },
  {
    id: "ID-5",
    level: "M",
    sentence: "No trailing slash",
    source: "ID §2.2",
    run: vectors({ refuse: ["spiffe://td/", "spiffe://td/a/"], read: ["spiffe://td/a"] }),
  },
  {
    id: "ID-6",
    level: "M",
    sentence: "IDs of 2048 bytes are read",
    source: "ID §2.3",
    run: vectors({
      refuse: [],
      read: [`spiffe://trust.example/${"a".repeat(2048 - "spiffe://trust.example/".length)}`],
    }),
  },
];

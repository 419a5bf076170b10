import { openConnectProxy } from "./connect-proxy.js";
import { freeDerivedPort } from "./derived-port.js";
import type { RelayParts } from "./exchange.js";
import type { OutboundLeg } from "./outbound.js";
import { isTunnelled, type RunningService } from "./running-service.js";
import type { TcpLeg } from "./tcp-outbound.js";

/** The listener for CONNECT: there while a target is reached by it. */
export interface ProxyListener {
  /** Undefined while no target is reached by CONNECT. */
  leg(): (OutboundLeg & TcpLeg) | undefined;
  /** Egress targets, by whatever way they are reached. */
  targets(): readonly RunningService[];
  /**
   * Goes over to the targets among `all`. The listener stays where it is as long as there is one of them and its port the same; a derived one is none of
   * `taken`. Throws as `openConnectProxy`: then the targets are those from before, and nothing listens.
   */
  change(all: readonly RunningService[], taken: readonly number[]): Promise<void>;
}

/** Its derived port follows from this, which is no name of a service. */
const PROXY_PORT = "(proxy)";

export function createProxyListener(parts: RelayParts): ProxyListener {
  let targets: readonly RunningService[] = [];
  /** `port` as the configuration says it. */
  let open: { readonly leg: OutboundLeg & TcpLeg; readonly port: number | undefined } | undefined;

  return {
    leg: () => open?.leg,
    targets: () => targets,
    async change(all, taken) {
      const before = targets;
      const [first] = all.filter(isTunnelled);
      if (first !== undefined && open !== undefined && open.port === first.listenPort) {
        targets = outside(all);
        return;
      }
      const old = open;
      open = undefined;
      await old?.leg.close(0);
      targets = outside(all);
      if (first === undefined) return;
      try {
        const port = first.listenPort ?? freeDerivedPort(parts.projectDirectory, PROXY_PORT, taken);
        const leg = await openConnectProxy(parts, { port, any: first, services: () => targets });
        open = { leg, port: first.listenPort };
      } catch (error) {
        targets = before;
        throw error;
      }
    },
  };
}

function outside(services: readonly RunningService[]): readonly RunningService[] {
  return services.filter(({ upstream }) => upstream.kind === "egress");
}

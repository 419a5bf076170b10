import { isDeepStrictEqual } from "node:util";
import type { AuthzenParts } from "../authzen/parts.js";
import { createAnswerer } from "../authzen/server.js";
import { openTlsDoor, type TlsDoor } from "../authzen/tls-door.js";
import { openUnixDoor } from "../authzen/unix-door.js";
import { AUTHZEN_IDENTITY, type HostPort } from "../config/config.js";
import { formatAddress } from "../config/describe-federation.js";
import type { Status } from "../control-api/routes.js";
import { socketPathIn } from "../platform/directories.js";
import { identityParts, matchesIdentity } from "../policy/pattern.js";
import { ruledAs } from "../policy/policy-names.js";
import type { PolicySet } from "../policy/policy-set.js";
import type { Rule } from "../policy/rule.js";
import { egressService } from "../relay/running-service.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { Attesting } from "./attesting.js";
import type { Foundation } from "./foundation.js";
import type { Issuing } from "./issuing.js";
import { administrationBehind } from "./owner.js";
import type { Project } from "./project.js";
import type { Relaying } from "./relaying.js";

/** The decision point for enforcement points other than our relay. */
export interface Deciding {
  readonly addresses: Status["authzen"];
  /** Listens as `next` says. Throws what listening throws; then it listens nowhere but on its Unix socket. */
  putInForce(next: Project): Promise<void>;
}

const DRAIN_MS = 1_000;

/** Opens the Unix socket always, and the TLS listener where `agentid.yaml` has one. */
export async function startDeciding(
  foundation: Foundation,
  { attesting, issuing, relaying }: { attesting: Attesting; issuing: Issuing; relaying: Relaying },
): Promise<Deciding> {
  const { platform, folders, audit, bus, clock, undo, options } = foundation;
  const { attestor, launches, adopters, isSandboxed } = attesting;
  const { trustDomain } = foundation.project.config;
  const { policy, explanations, strangers } = relaying;
  const parts: AuthzenParts = {
    trustDomain,
    attestor,
    registry: issuing.registry,
    svids: issuing.keeper,
    bundles: issuing.bundles,
    decisionPoint: () => policy().point,
    audit,
    strangers,
    clock,
    emit: (event) => bus.emit(event),
    onDecision: (call) => explanations.remember(call, policy(), new Date(clock.now())),
    clients: () => foundation.project.config.authzen.clients,
    owner: (fd) => administrationBehind(fd, { platform, launches, adopters, isSandboxed }),
    launchedBy: (name) => launches.chainsOf(name),
    services: () => {
      const { services, egress } = foundation.project.config;
      return [...services, ...egress.map((target) => egressService(target))].map(({ name, id, protocol }) => ({
        name,
        id: id.toString(),
        protocol: ruledAs(protocol),
      }));
    },
    entities: () => policy().set.entities,
    actionsOn: (type) => actionsNamed(policy().set.rules, type),
    toolsOf: (service) => toolsNamed(policy().set, service),
    obligations: () => [...new Set(policy().set.rules.flatMap(({ requires }) => requires.map(({ type }) => type)))],
  };
  const answer = createAnswerer(parts);
  const path = socketPathIn(folders.runtime, "authzen");
  const unix = await openUnixDoor(parts, answer, path);
  undo.push(() => unix.close(DRAIN_MS));
  const id = SpiffeId.of(trustDomain, AUTHZEN_IDENTITY);
  let tls: { readonly listen: HostPort; readonly door: TlsDoor } | undefined;
  const listen = async ({ config }: Project): Promise<void> => {
    // Beside a running trust domain of the same project, whose address this is.
    const wanted = options.ownSockets === true ? undefined : config.authzen.listen;
    if (isDeepStrictEqual(wanted, tls?.listen)) return;
    const before = tls;
    tls = undefined;
    // Closed first: the next one may want the same port.
    await before?.door.close(DRAIN_MS);
    if (wanted !== undefined) tls = { listen: wanted, door: await openTlsDoor(parts, answer, { listen: wanted, id }) };
  };
  undo.push(() => tls?.door.close(DRAIN_MS));
  await listen(foundation.project);
  return {
    get addresses() {
      const socket = `unix://${path}`;
      return tls === undefined ? { socket } : { socket, url: `https://${formatAddress(tls.listen)}` };
    },
    putInForce: listen,
  };
}

/** Actions that the rules name in full for resources of `type`. */
function actionsNamed(rules: readonly Rule[], type: string): readonly string[] {
  const named = rules
    .filter(({ resourceType }) => resourceType === undefined || resourceType === type)
    .flatMap(({ actions = [] }) => actions.filter(({ literal }) => literal).map(({ text }) => text));
  return [...new Set(named)].sort();
}

/** The pinned tools of `service`, and those that rules name in full: what no file names, no search can find. */
function toolsNamed({ rules, names }: PolicySet, service: string): readonly string[] {
  const found = names.services.find(({ name }) => name === service);
  if (found === undefined) return [];
  const id = identityParts(SpiffeId.of(names.trustDomain, found.identity).toString());
  const named = rules
    .filter(({ to }) => to === undefined || to.some((pattern) => matchesIdentity(pattern, id)))
    .flatMap(({ tools = [] }) => tools.filter(({ literal }) => literal).map(({ text }) => text));
  return [...new Set([...named, ...Object.keys(found.tools ?? {})])].sort();
}

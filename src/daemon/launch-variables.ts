import { INSIDE } from "../sandbox/view.js";

type Variables = Readonly<Record<string, string>>;

/** Inside, the Workload API has another path, and control does not exist; who may launch sub-agents asks for them at a socket that answers nothing else. */
export function insideOnly(variables: Variables, mayLaunch: boolean): Record<string, string> {
  return {
    ...withoutSockets(variables),
    SPIFFE_ENDPOINT_SOCKET: `unix://${INSIDE.workloadApi}`,
    ...(mayLaunch && { AGENTID_CONTROL: `unix://${INSIDE.launchSocket}` }),
  };
}

/** Neither the control socket nor those of services are inside; a service's port is. */
export function withoutSockets(variables: Variables): Record<string, string> {
  const inside = ([name]: readonly [string, string]) =>
    name !== "AGENTID_CONTROL" && !name.startsWith("AGENTID_SOCKET_");
  return Object.fromEntries(Object.entries(variables).filter(inside));
}

import { Refusal } from "../http/refusal.js";
import type { EnforcementPoint } from "./parts.js";

/** The enforcement point that one of `names` is, in their order. Throws Refusal `client-unknown` (403): deny by default. */
export function clientAmong(
  names: readonly string[],
  clients: readonly string[],
  idOf: (name: string) => string,
  detail: string,
): EnforcementPoint {
  const name = names.find((each) => clients.includes(each));
  if (name === undefined) {
    throw new Refusal(
      "client-unknown",
      403,
      `${names.join(", ")} may not ask the decision point: authzen.clients of agentid.yaml does not name it`,
    );
  }
  return { name, id: idOf(name), detail };
}

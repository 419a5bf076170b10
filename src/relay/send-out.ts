import { messageOf } from "../coded-error.js";
import { secretsIn } from "../config/egress-values.js";
import { Refusal } from "../http/refusal.js";
import { withdraw } from "../policy/settlement.js";
import { SecretError } from "../secrets/secret-error.js";
import type { EgressConnection } from "./egress-connection.js";
import { type Exchange, filled, type RelayParts, type Step, type StepResult } from "./exchange.js";
import { forward } from "./forward.js";
import { type Injection, injectionOf, withoutCredentials } from "./injected-headers.js";
import { nextHop } from "./next-hop.js";

/** The step that sends an allowed call to an egress target. Only now are its secrets fetched: a call that was denied does not touch them. */
export function sendOut(parts: RelayParts, current: () => EgressConnection): Step {
  return async (exchange): Promise<StepResult> => {
    const connection = current();
    const { target, dispatcher, host } = connection;
    const decidedBy = parts.decisionPoint();
    let injection: Injection;
    try {
      injection = await injectionFor(parts, connection);
      // Fetching may take seconds. What was revoked or narrowed meanwhile does not wait for it.
      if (hasGone(exchange)) throw new Refusal("caller-gone", 499, "the caller went away");
      if (parts.decisionPoint() !== decidedBy || current() !== connection) {
        throw new Refusal("not-ready", 503, "the configuration changed while the secret was fetched: call again");
      }
    } catch (thrown) {
      withdraw(filled(exchange.decision, "decision"));
      throw thrown;
    }
    const { redact: answerHeaders } = injection;
    const hop = nextHop(parts, exchange, { dispatcher, host, added: [], answerHeaders });
    await forward(parts, exchange, {
      ...hop,
      headers: [...withoutCredentials(hop.headers, target.headers), ...injection.headers],
      path: `${target.basePath}${hop.path}`,
    });
    return "answered";
  };
}

async function injectionFor({ secrets }: RelayParts, { target }: EgressConnection): Promise<Injection> {
  const names = [...new Set(target.headers.flatMap(secretsIn))];
  try {
    const values = await Promise.all(
      names.map(async (name) => {
        if (secrets === undefined) throw new SecretError("secret-missing", `the secret ${name} is not there`);
        return [name, await secrets.valueOf(name)] as const;
      }),
    );
    return injectionOf(target.headers, new Map(values));
  } catch (cause) {
    const code = cause instanceof SecretError && cause.code === "secret-missing" ? "secret-missing" : "secret-unusable";
    throw new Refusal(code, 503, `${target.name}: ${messageOf(cause)}`, { cause });
  }
}

function hasGone({ request, response }: Exchange): boolean {
  return request.socket.destroyed || response.destroyed;
}

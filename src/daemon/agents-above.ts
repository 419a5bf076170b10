import { isDeepStrictEqual } from "node:util";
import type { Caller, CallerAttestor } from "../attestation/caller.js";
import { launchedName } from "../attestation/launched-process.js";
import type { IdentityConfig } from "../config/config.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import { LONGEST_LAUNCH_CHAIN } from "../policy/launch-chain.js";
import { type Refuse, refusal } from "./launch-refusal.js";

interface Known {
  readonly attestor: CallerAttestor;
  readonly registry: IdentityRegistry;
}

/** The agents above a launch that `launcher`, started by an agent, asks for: that agent must have its identity now, and its entry name the sub-agent. */
export async function chainAbove(
  { attestor, registry }: Known,
  launcher: Caller,
  wanted: IdentityConfig,
  refuse: Refuse,
): Promise<readonly string[]> {
  const { launch: descends } = launcher;
  if (descends?.evidence !== "parent") {
    return refuse("nothing shows any more which agent started this process", "launch it again");
  }
  const agent = await attestor.ofPid(descends.pid);
  try {
    const name = launchedName(descends);
    const held = registry
      .entitlementsOf(agent)
      .granted.find(({ identity }) => identity.name === name && identity.launch !== undefined);
    if (agent.launch?.evidence !== "launch" || held === undefined) {
      return refuse(`process ${descends.pid}, which started it, does not have the identity ${name} now`, "");
    }
    if (held.identity.launch?.subagents.includes(wanted.name) !== true) {
      return refuse(
        `${name} may not launch ${wanted.name}`,
        `its entry in agentid.yaml would have to name it: launch: { subagents: [${wanted.name}] }`,
      );
    }
    const chain = [held.identity.id.toString(), ...held.launchedBy];
    if (chain.length > LONGEST_LAUNCH_CHAIN) {
      return refuse(`more than ${LONGEST_LAUNCH_CHAIN} agents would stand above it`, "");
    }
    return chain;
  } finally {
    agent.close();
  }
}

/** Process `asker`, which asked for a launch from below an agent, must stand below the same agents still. */
export async function requireChain(
  known: Known,
  asker: number,
  wanted: IdentityConfig,
  launchedBy: readonly string[],
): Promise<void> {
  const caller = await known.attestor.ofPid(asker);
  try {
    const now = await chainAbove(known, caller, wanted, (reason, hint) => {
      throw refusal(reason, hint);
    });
    if (!isDeepStrictEqual(now, launchedBy)) throw refusal("another agent stands above it now", "launch it again");
  } finally {
    caller.close();
  }
}

import type { RequiredFacts } from "../../src/config/config.js";
import { identity, runApi } from "../workload-api/running-api.js";

/** What the interop tests need of a running trust domain, whoever runs it: the daemon's parts in this process, or `agentid dev`. */
export interface TrustDomainUnderTest {
  readonly socketPath: string;
  /** Replaces the SVIDs of all identities. */
  rotateSvids(): void;
  /** Makes a new authority and has it sign. */
  rotateAuthority(): void;
  close(): Promise<void>;
}

/** Starts `shop.local` with these identities (name → what a process must be), in this process. */
export async function startTrustDomain(
  identities: Readonly<Record<string, RequiredFacts>>,
): Promise<TrustDomainUnderTest> {
  const running = await runApi({
    identities: Object.entries(identities).map(([name, facts]) => identity(name, facts, name)),
  });
  return {
    socketPath: running.path,
    rotateSvids: () => void running.keeper.rotateAll(),
    rotateAuthority() {
      running.authority.rotate();
      void running.keeper.rotateAll();
    },
    close: () => running.close(),
  };
}

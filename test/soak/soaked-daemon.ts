import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { makeProject, type RunningDev, startDev } from "../e2e/agentid.js";
import { type SoakReport, soak } from "./soak.js";

/** A soak of that many streams against `agentid dev`, started for it and stopped after. */
export async function soakDaemon(streams: number): Promise<SoakReport> {
  const project = makeProject({
    "agentid.yaml": `trustDomain: soak.local
identities:
  agents/soak: { uid: ${process.getuid?.() ?? 0} }
`,
  });
  const resourcesPath = join(project, "resources.sock");
  // Not --ephemeral: its record in memory fills up to its bound meanwhile, which would look like a leak.
  const daemon: RunningDev = await startDev(project, [], {
    NODE_OPTIONS: `--import=${pathToFileURL(join(import.meta.dirname, "resources.mjs"))}`,
    SOAK_RESOURCES: resourcesPath,
  });
  try {
    const socketPath = daemon.ready.workloadApi.slice("unix://".length);
    return await soak({ socketPath, resourcesPath, streams });
  } finally {
    await daemon.stop();
  }
}

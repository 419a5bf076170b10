import { createHash } from "node:crypto";
import { join } from "node:path";
import { canonicalize } from "json-canonicalize";
import type { AuditLog } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import { compareLocks } from "../config/compare-locks.js";
import { LOCK_FILE_NAME } from "../config/load.js";
import { writeLock } from "../config/lock-file.js";
import { pinsOf } from "../config/tool-pin.js";
import { displayText } from "../control-api/display-text.js";
import { listTools } from "../relay/list-tools.js";
import type { Project } from "./project.js";
import type { ProjectReload } from "./project-reload.js";
import { reachable } from "./relaying.js";
import type { ServiceSupervisor } from "./services.js";

export interface ToolPinningOptions {
  readonly project: () => Project;
  readonly projectDirectory: string;
  readonly services: Pick<ServiceSupervisor, "socketOf">;
  readonly reload: Pick<ProjectReload, "reloadNow">;
  readonly audit: AuditLog;
}

export interface PinToolsRequest {
  readonly service: string;
  readonly path: string;
  /** The digest of what the owner was shown; without it nothing is written. */
  readonly accept?: string | undefined;
}

export interface PinnedToolsReport {
  readonly service: string;
  /** How many the server has. */
  readonly tools: number;
  /** Hex SHA-256 over all pins. */
  readonly digest: string;
  readonly changes: string[];
  /** A tool says something else than what was pinned, or is pinned no longer. */
  readonly widened: boolean;
  /** What the new and the changed tools say of themselves. */
  readonly described: { readonly tool: string; readonly text: string }[];
  readonly pinned: boolean;
}

const MAX_LINE = 400;

/** Asks a service for its tools, shows how they differ from `agentid.lock`, and writes them there once exactly that was accepted (D8). */
export function createToolPinning(options: ToolPinningOptions) {
  return async function pinTools({ service, path, accept }: PinToolsRequest): Promise<PinnedToolsReport> {
    const { config, lock } = options.project();
    const known = config.services.find(({ name }) => name === service);
    if (known === undefined) throw new CodedError("service-unknown", `agentid.yaml has no service ${service}`);
    if (known.protocol !== "mcp") throw new CodedError("tools-unavailable", `${service} is no MCP server`);
    const tools = await listTools(reachable(known, options.services.socketOf), path);
    const pins = pinsOf(tools);
    const next = { ...lock, tools: { ...lock.tools, [service]: pins } };
    const compared = compareLocks(lock, next);
    const changes = compared.changes.map((line) => displayText(line, MAX_LINE));
    const before = lock.tools?.[service] ?? {};
    const described = tools
      .filter(({ name }) => !Object.hasOwn(before, name) || before[name]?.sha256 !== pins[name]?.sha256)
      .map(({ name, description }) => ({
        tool: displayText(name, MAX_LINE),
        text: displayText(typeof description === "string" ? description : "", MAX_LINE),
      }));
    const digest = createHash("sha256").update(canonicalize(pins)).digest("hex");
    const report = { service, tools: tools.length, digest, changes, widened: compared.widened, described };
    const isSame = changes.length === 0 && lock.tools?.[service] !== undefined;
    if (accept === undefined || isSame) return { ...report, pinned: false };
    if (accept !== digest) {
      throw new CodedError("tools-changed", `the tools of ${service} are no longer what was shown`, {
        hint: `look again: agentid mcp pin ${service}`,
      });
    }
    options.audit.append("pin", { service, why: "by command", changes: [...changes] }, { sync: true });
    await writeLock(join(options.projectDirectory, LOCK_FILE_NAME), next);
    // The command is the acceptance: who may run it is the owner, and no agent.
    await options.reload.reloadNow({ accepted: true });
    return { ...report, pinned: true };
  };
}

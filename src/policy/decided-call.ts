import type { AuditValue } from "../audit/audit-log.js";
import type { AccessRequest, Decision } from "./access-request.js";

/** A decision with what it was about. `request` is undefined where the enforcement point itself refused (no identity, malformed). */
export interface DecidedCall {
  readonly decision: Decision;
  readonly request: AccessRequest | undefined;
  readonly caller: string;
  readonly callerDetail: string;
  readonly evidence?: string;
  /** Names of the agents above the caller, nearest first. */
  readonly launchedBy?: string[];
  readonly service: string;
  readonly action: string;
  readonly target: string;
  readonly summary: string;
}

/** Any plain value as the record can hold it. */
export function auditValue(value: unknown): AuditValue {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (Array.isArray(value)) return value.map(auditValue);
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, auditValue(member)]));
  }
  return String(value);
}

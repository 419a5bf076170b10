import type { Refusal, RefusalCode } from "../http/refusal.js";

/** The codes of gRPC that the relay itself answers with. */
export const GrpcStatus = {
  deadlineExceeded: 4,
  permissionDenied: 7,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

const OF_REFUSALS: Partial<Readonly<Record<RefusalCode, number>>> = {
  "no-identity": GrpcStatus.unauthenticated,
  "process-changed": GrpcStatus.unauthenticated,
  "certificate-expired": GrpcStatus.unauthenticated,
  "certificate-refused": GrpcStatus.unauthenticated,
  "origin-foreign": GrpcStatus.permissionDenied,
  "record-unwritable": GrpcStatus.unavailable,
  "not-ready": GrpcStatus.unavailable,
  "upstream-unreachable": GrpcStatus.unavailable,
  "upstream-failed": GrpcStatus.unavailable,
  "upstream-timeout": GrpcStatus.deadlineExceeded,
};

/** What a refusal of the relay is in gRPC. What is malformed is `INTERNAL`, as a missing HTTP status 400 is (gRPC's http-grpc-status-mapping). */
export function grpcStatusOf({ code }: Refusal): number {
  return OF_REFUSALS[code] ?? GrpcStatus.internal;
}

/** `grpc-message`: UTF-8, percent-encoded but for printable ASCII (gRPC over HTTP/2, Responses). */
export function grpcMessage(text: string): string {
  let encoded = "";
  for (const byte of Buffer.from(text, "utf8")) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
    encoded += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** `grpc-timeout` in milliseconds; undefined for what is none. */
export function grpcTimeoutMs(text: string): number | undefined {
  const [, digits, unit] = /^([0-9]{1,8})([HMSmun])$/.exec(text) ?? [];
  if (digits === undefined || unit === undefined) return undefined;
  return Number(digits) * (UNIT_MS[unit] as number);
}

import { connect as connectTls } from "node:tls";
import { status } from "@grpc/grpc-js";
import { CodedError } from "../coded-error.js";
import { SpiffeWorkloadAPIService as Api, type X509SVIDResponse } from "../workload-api/generated/workload.js";
import { certificateChecks } from "./certificate-checks.js";
import { type Check, Failed, type Level, Skipped } from "./check.js";
import { type ConformanceOptions, createContext } from "./context.js";
import { endpointChecks } from "./endpoint-checks.js";
import { connectTo } from "./grpc-connection.js";
import { jwtChecks } from "./jwt-checks.js";
import { type Answer, createProbe, described } from "./probe.js";
import { spiffeIdChecks } from "./spiffe-id-checks.js";
import { streamChecks } from "./stream-checks.js";
import { validationChecks } from "./validation-checks.js";
import { witChecks } from "./wit-checks.js";
import { x509Checks } from "./x509-checks.js";

/** One line of a report. */
export interface CheckResult {
  readonly id: string;
  readonly level: Level;
  readonly sentence: string;
  readonly source: string;
  readonly result: "pass" | "fail" | "skip";
  /** What is wrong, or why there is no verdict; empty for a pass. */
  readonly reason: string;
}

/** In the order in which they run: what takes identities away comes last. */
const CHECKS: readonly Check[] = [
  ...endpointChecks,
  ...x509Checks,
  ...jwtChecks,
  ...validationChecks,
  ...witChecks,
  ...certificateChecks,
  ...spiffeIdChecks,
  ...streamChecks,
];

/** In the order of the standards, as reports show them. */
const FAMILIES = ["EP", "ST", "XR", "JR", "WR", "XS", "JS", "ID"];

/** Every check that there is, in the order of reports. */
export const conformanceChecks: readonly Pick<Check, "id" | "level" | "sentence" | "source">[] = inReportOrder(CHECKS);

/**
 * Runs the checks, or those that `only` names, against the Workload API at `options.target`.
 * Throws CodedError `conformance-unreachable` where nothing answers a correct call, `conformance-no-identity` where this process has no identity,
 * `conformance-hook` where a command of the operator failed, `bad-request` for an id that does not exist.
 */
export async function runConformance(
  options: ConformanceOptions,
  only: readonly string[] = [],
): Promise<readonly CheckResult[]> {
  const unknown = only.find((id) => !CHECKS.some((check) => check.id === id));
  if (unknown !== undefined) {
    throw new CodedError("bad-request", `there is no check ${unknown}`, {
      hint: `there are ${conformanceChecks.map(({ id }) => id).join(", ")}`,
    });
  }
  const selected = only.length === 0 ? CHECKS : CHECKS.filter(({ id }) => only.includes(id));
  const control = await controlCall(options);
  if (control === "demands-tls") return inReportOrder(selected.map(tlsResult));

  const context = createContext(options, control);
  try {
    for (const check of selected) await check.prepare?.(context);
    const results: CheckResult[] = [];
    for (const check of selected) results.push(resultOf(check, await verdictOf(() => check.run(context))));
    return inReportOrder(results);
  } finally {
    context.close();
  }
}

/** The call that must succeed before a refusal says anything. */
async function controlCall(options: ConformanceOptions): Promise<Answer<X509SVIDResponse> | "demands-tls"> {
  const probe = createProbe(options.target, options.deadlineMs, options.clock);
  const answer = await probe.ask(Api.fetchX509Svid, {}).catch((thrown: unknown) => {
    if (thrown instanceof Failed)
      return { ok: false, status: status.UNAVAILABLE, details: thrown.message, afterMs: options.deadlineMs } as const;
    throw thrown;
  });
  probe.drop();
  if (answer.ok) return answer;
  if (answer.status === status.UNAVAILABLE) {
    if (await demandsTls(options)) return "demands-tls";
    throw new CodedError("conformance-unreachable", `no Workload API can be reached: ${answer.details}`, {
      hint: "is it running at this address?",
    });
  }
  if (answer.status === status.PERMISSION_DENIED) {
    throw new CodedError("conformance-no-identity", `the Workload API answers ${described(answer)}`, {
      hint: "give this process an identity there, better two: for example by its user",
    });
  }
  return answer;
}

/** Whether the socket speaks TLS instead. Only the handshake is looked at: whoever it is gets nothing. */
function demandsTls({ target, deadlineMs, clock }: ConformanceOptions): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTls({ socket: connectTo(target), rejectUnauthorized: false, ALPNProtocols: ["h2"] });
    const settle = (demands: boolean): void => {
      cancel();
      socket.destroy();
      resolve(demands);
    };
    const cancel = clock.after(deadlineMs, () => settle(false));
    socket.once("secureConnect", () => settle(true));
    // A server that asks for a certificate as well has spoken TLS to say so.
    socket.once("error", (error) => settle("code" in error && String(error.code).startsWith("ERR_SSL_TLSV")));
    socket.once("close", () => settle(false));
  });
}

type Verdict = Pick<CheckResult, "result" | "reason">;

async function verdictOf(run: () => Promise<readonly string[]>): Promise<Verdict> {
  try {
    const problems = await run();
    return problems.length === 0 ? { result: "pass", reason: "" } : { result: "fail", reason: problems.join("; ") };
  } catch (thrown) {
    if (thrown instanceof Skipped) return { result: "skip", reason: thrown.message };
    if (thrown instanceof Failed) return { result: "fail", reason: thrown.message };
    throw thrown;
  }
}

function resultOf({ id, level, sentence, source }: Check, verdict: Verdict): CheckResult {
  return { id, level, sentence, source, ...verdict };
}

function tlsResult(check: Check): CheckResult {
  if (check.id === "EP-2") return resultOf(check, { result: "fail", reason: "the socket answers with TLS only" });
  return resultOf(check, { result: "skip", reason: "the socket answers with TLS only: EP-2" });
}

function inReportOrder<T extends { readonly id: string }>(ones: readonly T[]): readonly T[] {
  const place = ({ id }: T): number => {
    const [family = "", number = ""] = id.split("-");
    return FAMILIES.indexOf(family) * 1000 + Number(number);
  };
  return [...ones].sort((one, other) => place(one) - place(other));
}

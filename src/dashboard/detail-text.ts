import { destination } from "../control-api/display-text.js";
import type { Explanation } from "../control-api/explanation-routes.js";
import { shadowWords } from "../control-api/shadow-words.js";
import type { Call } from "./call-log.js";
import type { Row } from "./rows-of-screen.js";
import type { Identity, ReloadEvent, Service, State, WhyAnswer } from "./state.js";
import { line, type Span, type TextLine, type Tone, wrap } from "./text-line.js";
import { callResult, clockTime, duration, expiryOf } from "./words.js";

/** The detail pane: a title and lines of at most `width` cells, the most important first. */
export interface DetailText {
  readonly title: string;
  readonly lines: readonly TextLine[];
}

export function detailOf(row: Row | undefined, state: State, width: number): DetailText {
  switch (row?.is) {
    case undefined:
      return { title: "Detail", lines: [line({ text: "nothing here yet", tone: "dim" })] };
    case "call":
      return { title: callTitle(row, state), lines: callDetail(row.call, width) };
    case "identity":
      return { title: `Identity ${row.identity.name}`, lines: identityDetail(row.identity, state, width) };
    case "service":
      return { title: `Service ${row.service.name}`, lines: serviceDetail(row.service, width) };
    case "reload":
      return { title: "Reload", lines: reloadDetail(row.reload, width) };
    case "problem":
      return {
        title: `${row.problem.severity} ${row.problem.code}`,
        lines: wrap(row.problem.message, width).map((text) => line(text)),
      };
  }
}

/** Without a selection the pane follows what happens, and says so. */
function callTitle({ key, call }: Extract<Row, { is: "call" }>, state: State): string {
  if (state.cursors[state.screen].key === key) return `Decision ${key}`;
  return `Last ${call.decided.verdict === "DENY" ? "denial" : "call"} ${key}`;
}

function callDetail({ decided, ...call }: Call, width: number): TextLine[] {
  const denied = decided.verdict === "DENY";
  return [
    ...paragraph(
      { text: decided.verdict, tone: denied ? "deny" : "allow" },
      `${decided.caller} → ${destination(decided.service, decided.target)}`,
      width,
    ),
    ...field("rule", decided.at === undefined ? decided.rule : `${decided.rule}  ${decided.at}`, width),
    ...field("why", decided.reason, width, denied ? "deny" : "plain"),
    ...(decided.shadow === undefined ? [] : field("shadow", shadowWords(decided.shadow), width, "wait")),
    ...field("call", callText(decided.action, decided.summary), width),
    ...(denied ? [] : field("result", resultOf({ decided, ...call }), width)),
    ...whoFields(decided, width),
    ...field("when", clockTime(decided.time), width),
    line({ text: "[w] why in full and how to allow it   [c] copy id", tone: "dim" }),
  ];
}

/** The process, what its identity rests on, and the agents above it. */
function whoFields(
  who: { callerDetail: string; evidence?: string | undefined; launchedBy?: readonly string[] | undefined },
  width: number,
): TextLine[] {
  return [
    ...field("who", who.callerDetail === "" ? "by certificate" : who.callerDetail, width),
    ...(who.evidence === undefined ? [] : field("proof", who.evidence, width)),
    ...(who.launchedBy === undefined ? [] : field("by", `launched by ${who.launchedBy.join(", launched by ")}`, width)),
  ];
}

/** The summary of an HTTP call begins with its method already. */
function callText(action: string, summary: string): string {
  return summary.startsWith(action) ? summary : `${action} ${summary}`;
}

function resultOf(call: Call): string {
  return call.ended === undefined ? "still running" : `${callResult(call)} in ${duration(call.ended.durationMs)}`;
}

function identityDetail(identity: Identity, state: State, width: number): TextLine[] {
  const expiry = expiryOf(identity, state.now);
  return [
    ...field("id", identity.spiffeId, width),
    ...field("given to", identity.how, width),
    ...field(
      "expires",
      identity.notAfter === undefined ? expiry.left : `in ${expiry.left}, ${identity.notAfter}`,
      width,
    ),
    ...(expiry.next === "" ? [] : field("rotation", `${expiry.next}, ${identity.rotateAt ?? ""}`, width)),
    ...field("held by", identity.pids.length === 0 ? "no process" : `pid ${identity.pids.join(", ")}`, width),
  ];
}

/** What became of the processes that asked for an identity or were launched, newest first. */
export function processLines(state: State, width: number): TextLine[] {
  if (state.processes.length === 0) return [line({ text: "no process has asked yet", tone: "dim" })];
  return state.processes.toReversed().flatMap((event) => {
    const refused = event.change === "refused" || event.change === "launch-refused";
    const who = event.identity === undefined ? "" : ` as ${event.identity}`;
    return paragraph(
      { text: event.change.toUpperCase(), tone: refused ? "deny" : "plain" },
      `${clockTime(event.time)}${who} pid ${event.pid}, uid ${event.uid}: ${event.detail}`,
      width,
    );
  });
}

function serviceDetail(service: Service, width: number): TextLine[] {
  return [
    ...field("id", service.spiffeId, width),
    ...field("call at", service.url, width),
    ...field("mTLS", service.mtls, width),
    ...field("upstream", service.upstream, width),
    ...(service.reachableAround
      ? field("warning", "anything on this machine can call the upstream around the relay", width, "wait")
      : []),
  ];
}

function reloadDetail(reload: ReloadEvent, width: number): TextLine[] {
  return [
    ...field("outcome", reload.widened ? `${reload.outcome}, WIDENED` : reload.outcome, width),
    ...field("at", clockTime(reload.time), width),
    ...field("policy", reload.policyDigest, width),
    ...(reload.error === undefined ? [] : field("error", reload.error, width, "deny")),
    ...changeLines(reload, width),
  ];
}

/** The changes of a reload, one paragraph each. */
export function changeLines(reload: ReloadEvent, width: number): TextLine[] {
  return reload.changes.flatMap((change) =>
    wrap(change, width).map((text) => line({ text, tone: change.startsWith("+") ? "wait" : "plain" })),
  );
}

/** The answer to `w`. */
export function whyText(answer: WhyAnswer | undefined, width: number): TextLine[] {
  if (answer === undefined) return [line({ text: "asking the daemon …", tone: "dim" })];
  if ("error" in answer) return wrap(answer.error, width).map((text) => line({ text, tone: "deny" }));
  return explanationLines(answer.explanation, width);
}

function explanationLines(explanation: Explanation, width: number): TextLine[] {
  const { verdict, considered, suggestion } = explanation;
  return [
    ...paragraph(
      { text: verdict, tone: verdict === "DENY" ? "deny" : "allow" },
      `${explanation.caller} → ${destination(explanation.service, explanation.target)}`,
      width,
    ),
    ...whoFields(explanation, width),
    ...field("what", `${explanation.action} ${explanation.target} ${explanation.arguments}`, width),
    ...field("why", explanation.reason, width),
    ...(explanation.shadow === undefined ? [] : field("shadow", shadowWords(explanation.shadow), width, "wait")),
    ...field("rules", `${considered.length} considered`, width),
    ...considered.flatMap((rule) => [
      line(
        { text: `  ${rule.rule}`, tone: "strong" },
        `  ${rule.at}  ${rule.effect}${rule.shadow === true ? ", in shadow" : ""}`,
      ),
      ...(rule.subject === undefined ? [] : field("", `for ${rule.subject}, which launched the caller`, width)),
      ...field("", `${rule.outcome}: ${rule.detail}`, width),
    ]),
    ...(suggestion === undefined ? [] : suggestionLines(suggestion, width)),
  ];
}

function suggestionLines(suggestion: string, width: number): TextLine[] {
  return [
    line(""),
    line({ text: "the narrowest rule that would allow it:", tone: "strong" }),
    ...suggestion
      .split("\n")
      .flatMap((text) => (text.length <= width ? [line(text)] : wrap(text, width).map((part) => line(part)))),
  ];
}

function field(name: string, value: string, width: number, tone: Tone = "plain"): TextLine[] {
  const indent = 9;
  return wrap(value, width - indent).map((text, index) =>
    line({ text: (index === 0 ? name : "").padEnd(indent), tone: "dim" }, { text, tone }),
  );
}

function paragraph(head: Span, body: string, width: number): TextLine[] {
  return wrap(`${head.text} ${body}`, width).map((text, index) =>
    index === 0 && text.startsWith(head.text) ? line(head, text.slice(head.text.length)) : line(text),
  );
}

import type { AgentidEvent } from "../control-api/events.js";
import { shadowWords } from "../control-api/shadow-words.js";
import { displayable } from "./displayable.js";
import { filled } from "./text-line.js";
import { bytesPassed, clockTime, counted, duration } from "./words.js";

const KIND_WIDTH = 8;

/** One line for an event, aligned, safe to print: time, what it is, the rest. */
export function logLine(event: AgentidEvent): string {
  const { kind, text } = contentOf(displayable(event));
  return `${clockTime(event.time)}  ${filled(kind, KIND_WIDTH)}  ${text}`;
}

function contentOf(event: AgentidEvent): { kind: string; text: string } {
  switch (event.event) {
    case "ready":
      return { kind: "READY", text: `${event.trustDomain}  SPIFFE_ENDPOINT_SOCKET=${event.workloadApi}` };
    case "call": {
      const call = `${filled(event.caller, 14)} → ${filled(event.service, 10)}  ${event.summary}`;
      const why = event.reason.startsWith(event.rule) ? event.reason : `${event.rule}: ${event.reason}`;
      const shadow = event.shadow === undefined ? "" : `  ${shadowWords(event.shadow)}`;
      if (event.verdict === "DENY")
        return { kind: event.verdict, text: `${call}  ${why}${shadow}  (${event.decision})` };
      return { kind: event.verdict, text: shadow === "" ? call : `${call}${shadow}  (${event.decision})` };
    }
    case "call.ended":
      return event.error === undefined
        ? {
            kind: "ENDED",
            text: `${bytesPassed(event) ?? event.status ?? "no answer"} in ${duration(event.durationMs)}  (${event.decision})`,
          }
        : { kind: "FAILED", text: `${event.error} after ${duration(event.durationMs)}  (${event.decision})` };
    case "identity": {
      const end = event.notAfter ?? event.until;
      const until = end === undefined ? "" : `  until ${end}`;
      return { kind: event.change.toUpperCase(), text: `${event.name}  ${event.spiffeId}${until}` };
    }
    case "process":
      return { kind: "PROCESS", text: processText(event) };
    case "reload":
      return { kind: "RELOAD", text: reloadText(event) };
    case "problem":
      return {
        kind: event.severity.toUpperCase(),
        text: `${event.code}: ${event.message}${event.resolved === true ? "  (over)" : ""}`,
      };
    case "stopping":
      return { kind: "STOPPING", text: event.reason };
  }
}

function processText(event: Extract<AgentidEvent, { event: "process" }>): string {
  const identity = event.identity === undefined ? "" : ` as ${event.identity}`;
  return `${event.change}${identity}  pid ${event.pid}, uid ${event.uid}: ${event.detail}`;
}

function reloadText(event: Extract<AgentidEvent, { event: "reload" }>): string {
  const widened = event.widened ? " WIDENED" : "";
  const error = event.error === undefined ? "" : `: ${event.error}`;
  const changes =
    event.changes.length === 0 ? "" : `  ${counted(event.changes.length, "change")}: ${event.changes.join("; ")}`;
  return `${event.outcome}${widened}${error}${changes}`;
}

import { Args, Flags } from "@oclif/core";
import { CodedError } from "../coded-error.js";
import { durationSeconds } from "../config/duration.js";
import type { LiveCredential, RevocationReport } from "../control-api/authority-routes.js";
import { displayText } from "../control-api/display-text.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Revoke extends AgentidCommand {
  static override summary = "Revoke an identity: streams end, relay connections close, nothing is issued";
  static override args = {
    id: Args.string({ required: true, description: "identity, or any SPIFFE ID" }),
  };
  static override flags = {
    for: Flags.string({
      summary: "give it back after this time: 30m, 24h, 7d",
      exclusive: ["until-restart", "undo"],
      helpValue: "DURATION",
    }),
    "until-restart": Flags.boolean({
      summary: "give it back when the trust domain starts again",
      exclusive: ["for", "undo"],
    }),
    undo: Flags.boolean({ summary: "give it back now", exclusive: ["for", "until-restart"] }),
  };
  static override examples = [
    "<%= config.bin %> revoke billing",
    "<%= config.bin %> revoke billing --for 1h",
    "<%= config.bin %> revoke --undo billing",
  ];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(Revoke);
    const daemon = runningDaemon(flags.project);
    if (flags.undo) {
      const restored = await daemon.call("undoRevocation", { id: args.id });
      this.log(`restored  ${restored.spiffeId}`);
      return restored;
    }
    const forSeconds = flags.for === undefined ? undefined : requireDuration(flags.for);
    const revoked = await daemon.call("revoke", {
      id: args.id,
      untilRestart: flags["until-restart"],
      ...(forSeconds === undefined ? {} : { forSeconds }),
    });
    this.log(revocationText(revoked));
    return revoked;
  }
}

function requireDuration(text: string): number {
  const seconds = durationSeconds(text);
  if (seconds !== undefined) return seconds;
  throw new CodedError("bad-request", `--for ${text} is not a duration`, { hint: "write it as 300s, 30m, 24h or 7d" });
}

function revocationText(revoked: RevocationReport & { readonly credentials: readonly LiveCredential[] }): string {
  const { spiffeId, name, until, credentials } = revoked;
  const end =
    until === undefined ? "until it is undone" : until === "restart" ? "until the next start" : `until ${until}`;
  const live =
    credentials.length === 0
      ? ["  nothing that was issued to it is still valid"]
      : [
          "  issued before and still valid wherever nobody asks this trust domain or reads its revocation list:",
          ...credentials.map((credential) => `    ${credentialText(credential)}`),
        ];
  return [
    `revoked   ${spiffeId}   ${end}`,
    "  its streams have ended, its connections through the relay are closed, nothing is issued to it",
    ...live,
    `  undo: agentid revoke --undo ${name}`,
  ].join("\n");
}

const TYPES = { x509: "X.509", jwt: "JWT", wit: "WIT" } as const;

function credentialText({ type, serial, audience, notAfter }: LiveCredential): string {
  const what = serial === undefined ? `for ${displayText((audience ?? []).join(", "), 80)}` : `serial ${serial}`;
  return `${TYPES[type].padEnd(5)} ${what}   until ${notAfter}`;
}

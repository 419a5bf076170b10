import { Args, Flags } from "@oclif/core";
import { createWorkloadApiClient } from "../../client/spiffe/index.js";
import { findWorkloadApi } from "../../client/workload-api-address.js";
import { displayText } from "../../control-api/display-text.js";
import type { JwtBundles } from "../../spiffe/jwt-svid.js";
import { judgeJwtSvid } from "../../spiffe/jwt-svid-rules.js";
import type { RuleOutcome } from "../../spiffe/rule-outcome.js";
import { authoritiesIn, keySetOf, parseBundleFile, parseSvidFile, type SvidFile } from "../../spiffe/svid-file.js";
import { judgeWitSvid } from "../../spiffe/wit-svid-rules.js";
import type { X509Authorities } from "../../spiffe/x509-svid.js";
import { judgeX509Svid } from "../../spiffe/x509-svid-rules.js";
import { AgentidCommand, EXIT } from "../base-command.js";
import { readInput } from "../input-file.js";

interface VerifyFlags {
  readonly bundle?: string | undefined;
  readonly socket?: string | undefined;
  readonly project?: string | undefined;
  readonly audience?: string | undefined;
}

const KINDS = { x509: "X.509-SVID", jwt: "JWT-SVID", wit: "WIT-SVID" } as const;
const MARKS = { kept: "✓", broken: "✗", unknown: "–" } as const;

export default class SvidVerify extends AgentidCommand {
  static override summary = "Verify a certificate or token, and say of every rule of the standard whether it is kept";
  static override description =
    "Trust is judged by --bundle, which works offline, or by the bundles that a Workload API gives this process. Exit code 1 if a rule is broken, or if trust could not be judged.";
  static override args = { file: Args.string({ required: true, description: "file, or - for standard input" }) };
  static override flags = {
    bundle: Flags.string({ summary: "trust bundle: PEM or DER roots, SPIFFE bundle, JWK Set", helpValue: "FILE" }),
    audience: Flags.string({ summary: "who verifies: the token must be for it" }),
    socket: Flags.string({
      summary: "address of the Workload API (default: SPIFFE_ENDPOINT_SOCKET, else the project's)",
    }),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SvidVerify);
    const file = parseSvidFile(await readInput(args.file));
    const rules = await judgeFile(file, flags);
    const width = Math.max(...rules.map(({ source }) => source.length));
    for (const { source, sentence, verdict, detail, code } of rules) {
      const why = detail === "" ? "" : `: ${displayText(detail)}${code === undefined ? "" : ` [${code}]`}`;
      this.log(`${MARKS[verdict]} ${source.padEnd(width)}  ${sentence}${why}`);
    }
    const broken = rules.filter(({ verdict }) => verdict === "broken").length;
    const unknown = rules.filter(({ verdict }) => verdict === "unknown").length;
    const valid = broken === 0 && unknown === 0;
    this.log(conclusion(file, broken, unknown));
    if (!valid) process.exitCode = EXIT.failed;
    return { kind: file.kind, valid, broken, unknown, rules };
  }
}

function conclusion({ kind }: SvidFile, broken: number, unknown: number): string {
  const what = KINDS[kind];
  if (broken > 0) return `not a valid ${what}: ${broken} ${broken === 1 ? "rule is" : "rules are"} broken`;
  if (unknown > 0) return `not verified: nothing is broken, but ${unknown} could not be judged`;
  return `a valid ${what}`;
}

async function judgeFile(file: SvidFile, flags: VerifyFlags): Promise<readonly RuleOutcome[]> {
  const now = new Date();
  switch (file.kind) {
    case "x509":
      return judgeX509Svid(file.chain, await x509Authorities(flags), now);
    case "jwt":
      return judgeJwtSvid(file.token, { audience: flags.audience, bundles: await tokenBundles("jwt", flags), now });
    case "wit":
      return judgeWitSvid(file.token, { bundles: await tokenBundles("wit", flags), now });
  }
}

async function x509Authorities(flags: VerifyFlags): Promise<X509Authorities | undefined> {
  if (flags.bundle !== undefined) {
    const file = parseBundleFile(await readInput(flags.bundle));
    return (trustDomain) => authoritiesIn(file, trustDomain);
  }
  const bundles = await fromWorkloadApi(flags, (client) => client.fetchX509Bundles());
  return bundles && ((trustDomain) => bundles.get(trustDomain.name));
}

async function tokenBundles(kind: "jwt" | "wit", flags: VerifyFlags): Promise<JwtBundles | undefined> {
  if (flags.bundle !== undefined) {
    const { jwtKeys, witKeys } = parseBundleFile(await readInput(flags.bundle));
    const keys = keySetOf(kind === "jwt" ? jwtKeys : witKeys);
    return () => keys;
  }
  const bundles = await fromWorkloadApi(flags, (client) =>
    kind === "jwt" ? client.fetchJwtBundles() : client.fetchWitBundles(),
  );
  return bundles && ((trustDomain) => bundles.get(trustDomain.name));
}

/** What the Workload API gives, or undefined where none was named and none is there: the other rules can be judged without. */
async function fromWorkloadApi<Bundles>(
  { socket, project }: VerifyFlags,
  fetch: (client: ReturnType<typeof createWorkloadApiClient>) => Promise<Bundles>,
): Promise<Bundles | undefined> {
  let client: ReturnType<typeof createWorkloadApiClient> | undefined;
  try {
    client = createWorkloadApiClient({ socketPath: findWorkloadApi(socket, project, process.env) });
    return await fetch(client);
  } catch (thrown) {
    if (socket !== undefined) throw thrown;
    return undefined;
  } finally {
    client?.close();
  }
}

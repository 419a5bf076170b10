import { execFile, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import type { Case, Verdict } from "./case.js";
import { jwtBundleText } from "./jwt-svids.js";

const execute = promisify(execFile);
/** Builds stay here; git ignores it. */
const cache = join(import.meta.dirname, "../../../.cache/interop");

const Answer = z.object({ accept: z.boolean(), reason: z.string().optional(), x509: z.number(), jwt: z.number() });

/** go-spiffe's word on each of `cases`, in order. */
export type SecondOpinion = (cases: readonly Case[]) => Promise<readonly Verdict[]>;

/** go-spiffe as a judge, built on demand; or what is missing on this machine, for people. */
export async function prepareSecondOpinion(): Promise<
  { readonly judge: SecondOpinion } | { readonly missing: string }
> {
  const program = join(cache, "verdicts");
  mkdirSync(cache, { recursive: true });
  try {
    await execute("go", ["build", "-o", program, "."], { cwd: join(import.meta.dirname, "../go-verdicts") });
  } catch (thrown) {
    return { missing: `the judge could not be built: ${String(thrown).split("\n")[0]}` };
  }
  return { judge: (cases) => ask(program, cases) };
}

async function ask(program: string, cases: readonly Case[]): Promise<readonly Verdict[]> {
  const child = spawn(program, { stdio: ["pipe", "pipe", "inherit"] });
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  child.stdin.end(cases.map(question).join(""));
  const code = await closed;
  const lines = Buffer.concat(chunks).toString().trim().split("\n");
  if (code !== 0 || lines.length !== cases.length) throw new Error(`the judge ended with ${code}`);
  return lines.map((line) => Answer.parse(JSON.parse(line)));
}

function question({ kind, text }: Case): string {
  const base64 = (what: string) => Buffer.from(what).toString("base64");
  const bundle = kind === "jwt-svid" ? base64(jwtBundleText) : "";
  return `${JSON.stringify({ kind, text: base64(text), trustDomain: "shop.local", bundle, audience: "orders" })}\n`;
}

import type { RegoEngineConfig } from "../../config/config.js";
import type { AccessRequest } from "../access-request.js";
import type { PolicyEngine, Verdict } from "../engine.js";
import { writtenOut } from "../request-digest.js";
import type { PolicyProblem } from "../yaml-file.js";
import { consideredAs, refused } from "./denials.js";
import { verdictOf } from "./engine-answer.js";
import {
  digestOf,
  type EngineFile,
  EngineFileError,
  fileProblem,
  readEngineFile,
  readEngineFiles,
  shownPath,
  textOf,
} from "./engine-files.js";
import { knownRequest } from "./known-request.js";
import type { EngineContext, EngineLoad } from "./loaded-engine.js";
import { readRegoBundle } from "./rego-bundle.js";
import { compileRego } from "./rego-compile.js";
import { regoThreads } from "./rego-threads.js";

/** What the thread is handed must be written out on the event loop: milliseconds for a megabyte. */
const MAX_INPUT_CHARACTERS = 1024 * 1024;

/** Reads, and where need be compiles, what a Rego engine decides by. Throws EngineFileError and CodedError. */
export async function loadRegoEngine(config: RegoEngineConfig, context: EngineContext): Promise<EngineLoad> {
  const { projectDirectory, cacheDirectory, environment, entities, isAsked } = context;
  const { name, entrypoint, timeoutMillis } = config;
  const { files, bytes, shown } = await sourceOf(config, { projectDirectory, cacheDirectory, environment });
  const dataFile = config.data === undefined ? undefined : await readEngineFile(config.data, projectDirectory);
  const bundle = await readRegoBundle(bytes);
  const data = dataFile === undefined ? bundle.data : jsonOf(dataFile);
  const threads = regoThreads({ wasm: bundle.wasm, entrypoint, data }, timeoutMillis);
  await threads.check().catch((cause: Error) => {
    throw new EngineFileError("policy-rego", shown, cause.message);
  });
  const all = [...files, { shown, bytes }, ...(dataFile === undefined ? [] : [dataFile])];
  const digest = digestOf(["rego", name, config.scope ?? null, entrypoint, timeoutMillis], all);
  const problems: PolicyProblem[] =
    dataFile !== undefined && bundle.data.trim() !== "{}"
      ? [fileProblem("policy-rego", shown, "its own data are replaced by those of the data file", undefined, "warning")]
      : [];
  const open = (use: Parameters<NonNullable<EngineLoad["engine"]>["open"]>[0]): PolicyEngine => {
    const judge = async (request: AccessRequest): Promise<Verdict> => {
      const input = await writtenOut(request, knownRequest(request, entities));
      if (input.length > MAX_INPUT_CHARACTERS) {
        return refused({ rule: entrypoint, reason: `the request is larger than ${MAX_INPUT_CHARACTERS} characters` });
      }
      const json = await threads.evaluate({ input, now: use.clock.now() }, request.subject.id);
      return verdictOf(json === undefined ? undefined : JSON.parse(json), name, entrypoint);
    };
    const consider = (_: AccessRequest, verdict: Verdict) => consideredAs(name, verdict);
    return { name, digest, isAsked, judge, consider, couldAllow: () => true, cannotTell: true };
  };
  return { engine: { name, digest, open }, problems };
}

/** What a policy denies by would be missing with it. */
const DATA = /(?:^|[\\/])data\.(?:json|ya?ml)$/;

async function sourceOf(
  { source, entrypoint, data }: RegoEngineConfig,
  {
    projectDirectory,
    cacheDirectory,
    environment,
  }: Pick<EngineContext, "projectDirectory" | "cacheDirectory" | "environment">,
): Promise<{ readonly files: readonly EngineFile[]; readonly bytes: Buffer; readonly shown: string }> {
  if ("bundle" in source) {
    const { bytes, shown } = await readEngineFile(source.bundle, projectDirectory);
    return { files: [], bytes, shown };
  }
  const found = await readEngineFiles(source.rego, projectDirectory, [".rego", "data.json", "data.yaml", "data.yml"]);
  const left = found.find(({ shown }) => DATA.test(shown));
  if (left !== undefined && data === undefined) {
    throw new EngineFileError(
      "policy-rego",
      left.shown,
      "opa would take this for data of the policy, which are read only from the file that data names",
      "name it, as JSON: data: policies/data.json",
    );
  }
  const files = found.filter(({ shown }) => shown.endsWith(".rego") && !shown.endsWith("_test.rego"));
  if (files.length === 0) {
    throw new EngineFileError("policy-file-unreadable", shownPath(source.rego, projectDirectory), "holds no .rego");
  }
  const bytes = await compileRego(files, { entrypoint, cacheDirectory, environment });
  return { files, bytes, shown: shownPath(source.rego, projectDirectory) };
}

function jsonOf(file: EngineFile): string {
  const text = textOf(file);
  try {
    const data: unknown = JSON.parse(text);
    if (typeof data === "object" && data !== null && !Array.isArray(data)) return text;
  } catch (thrown) {
    throw new EngineFileError("policy-rego", file.shown, String(thrown));
  }
  throw new EngineFileError("policy-rego", file.shown, "must be an object");
}

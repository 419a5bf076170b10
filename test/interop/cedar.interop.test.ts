import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Context, EntityJson, TypeAndId } from "@cedar-policy/cedar-wasm/nodejs";
import { expect, test } from "vitest";
import { cedarEvaluator } from "../../src/policy/engines/cedar-evaluator.js";
import { cedarLibrary } from "../../src/policy/engines/cedar-library.js";
import { readCedarPolicies } from "../../src/policy/engines/cedar-policies.js";
import { plain } from "../../src/policy/engines/cedar-request.js";
import { readCedarSchema, uidText } from "../../src/policy/engines/cedar-schema.js";

const execute = promisify(execFile);
/** The corpus of cedar-policy/cedar-integration-tests lies whole in the module of the Go implementation. */
const MODULE = "github.com/cedar-policy/cedar-go@v1.9.0";
/** Of a hundred tests so many, always the same ones. */
const PERCENT = 5;
/**
 * Of the 7,809 tests those whose numbers JavaScript does not hold exactly: 20 files. Another answer there is known; a permit where Cedar denies
 * would still be a failure.
 */
const INEXACT = /-?\d{16,}/;

interface CorpusTest {
  readonly policies: string;
  readonly entities: string;
  readonly schema: string;
  readonly requests: readonly CorpusRequest[];
}

interface CorpusRequest {
  readonly principal: TypeAndId;
  readonly action: TypeAndId;
  readonly resource: TypeAndId;
  readonly context: Context;
  readonly validateRequest: boolean;
  readonly decision: "allow" | "deny";
  readonly reason: readonly string[];
  readonly errors: readonly string[];
}

/** The unpacked corpus; or what is missing on this machine. */
async function prepareCorpus(): Promise<{ readonly folder: string } | { readonly missing: string }> {
  const cache = join(import.meta.dirname, "../../.cache/interop/cedar-corpus");
  const folder = join(cache, "corpus-tests");
  if (existsSync(folder)) return { folder };
  try {
    const { stdout } = await execute("go", ["mod", "download", "-json", MODULE], { cwd: "/" });
    mkdirSync(cache, { recursive: true });
    await execute("tar", ["xzf", join(JSON.parse(stdout).Dir, "corpus-tests.tar.gz"), "-C", cache]);
    return { folder };
  } catch (thrown) {
    return { missing: `the Cedar corpus could not be had: ${String(thrown).split("\n")[0]}` };
  }
}

const corpus = await prepareCorpus();
if ("missing" in corpus) process.stderr.write(`SKIPPED: ${corpus.missing}\n`);

test.skipIf("missing" in corpus)(
  "a sample of Cedar's public corpus is decided by our evaluation as Cedar says",
  async () => {
    if ("missing" in corpus) return;
    const { folder } = corpus;
    const cedar = await cedarLibrary();
    const read = (path: string) => ({ shown: path, bytes: readFileSync(join(folder, "..", path)) });
    const names = readdirSync(folder)
      .filter((name) => /^[0-9a-f]{40}\.json$/.test(name))
      .sort();
    const sample = names.filter((_, index) => index % (100 / PERCENT) === 0);
    const counts = { files: 0, requests: 0, allowed: 0, withErrors: 0, inexact: 0, failures: 0 };
    const wrong: string[] = [];
    for (const name of sample) {
      const described = JSON.parse(read(`corpus-tests/${name}`).bytes.toString()) as CorpusTest;
      const entitiesText = read(described.entities).bytes.toString();
      const inexact =
        [described.policies, described.schema].some((path) => INEXACT.test(read(path).bytes.toString())) ||
        INEXACT.test(entitiesText) ||
        INEXACT.test(JSON.stringify(described.requests));
      const entities = JSON.parse(entitiesText) as EntityJson[];
      const schema = readCedarSchema(cedar, read(described.schema));
      const { policies, problems } = readCedarPolicies(cedar, [read(described.policies)], undefined);
      expect(problems).toEqual([]);
      // Cedar's own names: by the order in the file.
      const numbered = new Map(policies.map(({ id }, index) => [id, `policy${index}`]));
      const evaluator = cedarEvaluator(cedar, policies, schema);
      const above = ancestorsIn(entities);
      for (const request of described.requests) {
        const { principal, action, resource, context } = request;
        const keys = {
          action: ["*", uidText(action.type, action.id), ...schema.groupsOf(action.type, action.id)],
          principal: ["*", `is ${principal.type}`, ...above(principal)],
          resource: ["*", `is ${resource.type}`, ...above(resource)],
        };
        const answer = evaluator.evaluate(
          { principal, action, resource, context, entities },
          evaluator.candidates(keys),
        );
        counts.requests += 1;
        if (answer.type === "failure") {
          counts.failures += 1;
          if (inexact) counts.inexact += 1;
          else if (request.validateRequest) wrong.push(`${name}: ${answer.errors[0]?.message}`);
          continue;
        }
        const { decision, diagnostics } = answer.response;
        const numbers = (ids: readonly string[]) => ids.map((id) => numbered.get(id)).sort();
        const got = {
          decision,
          reason: numbers(diagnostics.reason),
          errors: numbers(diagnostics.errors.map(({ policyId }) => policyId)),
        };
        const asked = {
          decision: request.decision,
          reason: [...request.reason].sort(),
          errors: [...request.errors].sort(),
        };
        if (JSON.stringify(got) === JSON.stringify(asked)) {
          if (decision === "allow") counts.allowed += 1;
          if (got.errors.length > 0) counts.withErrors += 1;
        } else if (inexact && !(decision === "allow" && request.decision === "deny")) counts.inexact += 1;
        else wrong.push(`${name}: ${JSON.stringify(asked)} but ${JSON.stringify(got)}`);
      }
      counts.files += 1;
    }
    process.stdout.write(`Cedar corpus: ${JSON.stringify(counts)}\n`);
    expect(wrong).toEqual([]);
    expect(counts.files).toBeGreaterThan(300);
    expect(counts.allowed).toBeGreaterThan(100);
    expect(counts.withErrors).toBeGreaterThan(10);
  },
  300_000,
);

/** Everything above an entity, itself included. */
function ancestorsIn(entities: readonly EntityJson[]): (uid: TypeAndId) => readonly string[] {
  const parents = new Map(
    entities.map(({ uid, parents: above }) => {
      const { type, id } = plain(uid);
      return [uidText(type, id), above.map(plain).map((each) => uidText(each.type, each.id))];
    }),
  );
  return ({ type, id }) => {
    const found = new Set([uidText(type, id)]);
    for (const each of found) for (const parent of parents.get(each) ?? []) found.add(parent);
    return [...found];
  };
}

import { CodedError } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { valueAt, withKeyAt, withRuleKey, withTopKey } from "../policy/edit-rules.js";
import { nearestHint } from "../policy/policy-names.js";
import { type PolicySet, readRuleFiles } from "../policy/policy-set.js";
import { changeOf, configChangeOf, type FileChange } from "./rule-files.js";

/** What can be put in shadow. */
export type Target = { readonly isInShadow: boolean } & (
  | { readonly kind: "rule" | "file"; readonly file: string; readonly name: string }
  | { readonly kind: "identity"; readonly name: string }
);

/** The one thing that `what` names: a rule, a rule file, an identity by its name or by its last segment. Throws CodedError `bad-request`. */
export async function targetNamed(
  what: string,
  { identities, policiesDirectory }: Config,
  { rules }: PolicySet,
): Promise<Target> {
  const { files } = await readRuleFiles(policiesDirectory);
  const targets: readonly Target[] = [
    ...rules.map((rule): Target => {
      const file = rule.at.slice(0, rule.at.lastIndexOf(":"));
      return { kind: "rule", name: rule.name, file, isInShadow: rule.shadow };
    }),
    ...files.map(
      ({ file, bytes }): Target => ({
        kind: "file",
        name: file,
        file,
        isInShadow: valueAt(Buffer.from(bytes).toString(), ["shadow"]) === true,
      }),
    ),
    ...identities.map(({ name, shadow }): Target => ({ kind: "identity", name, isInShadow: shadow === true })),
  ];
  const exact = targets.filter(({ name }) => name === what);
  const last = targets.filter(({ kind, name }) => kind === "identity" && name.endsWith(`/${what}`));
  const [found, another] = exact.length > 0 ? exact : last;
  if (found === undefined) {
    const hint = nearestHint(
      what,
      targets.map(({ name }) => name),
    );
    throw new CodedError(
      "bad-request",
      `no rule, rule file or identity is called ${what}`,
      hint === undefined ? {} : { hint },
    );
  }
  if (another !== undefined)
    throw new CodedError("bad-request", `${found.name} and ${another.name} are both called ${what}`);
  return found;
}

/** The change of a file that puts it in shadow, or ends that. Throws CodedError `policy-edit` and what else `changeOf` throws. */
export async function shadowChange(
  target: Target,
  isOn: boolean,
  config: Config,
  policies: PolicySet,
): Promise<FileChange> {
  const value = isOn ? true : undefined;
  const { name } = target;
  if (target.kind === "identity") {
    return configChangeOf(config, (text) => withKeyAt(text, ["identities", name], "shadow", value));
  }
  const edited = (text: string) =>
    target.kind === "rule" ? withRuleKey(text, name, "shadow", value) : withTopKey(text, "shadow", value);
  const change = await changeOf(config, policies, target.file, edited);
  if (change.before !== change.after) return change;
  throw new CodedError("policy-edit", `${name} is in shadow with its whole file`, {
    hint: `agentid policy shadow ${target.file} --off`,
  });
}

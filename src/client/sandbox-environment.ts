import { leadsOut } from "../sandbox/private-paths.js";
import { INSIDE } from "../sandbox/view.js";

const KEPT = "AGENTID_KEPT_";

/**
 * The environment of a process inside a sandbox, of one that was made for a launch: without what leads out. The entry's `keepEnv` goes under other
 * names while bubblewrap and Node start, which would obey such variables themselves; `unwrapped` gives them back.
 */
export function insideEnvironment(
  launched: Readonly<Record<string, string>>,
  { keepEnv, setEnv }: { readonly keepEnv: readonly string[]; readonly setEnv: Readonly<Record<string, string>> },
): Record<string, string> {
  const inside: Record<string, string> = {};
  for (const [name, value] of Object.entries(launched)) {
    if (Object.hasOwn(setEnv, name)) inside[name] = value;
    else if (keepEnv.includes(name)) inside[`${KEPT}${name}`] = value;
    else if (!leadsOut(name)) inside[name] = value;
  }
  const { PATH } = inside;
  const path = PATH === undefined ? {} : { PATH: `${PATH}:${INSIDE.bin}` };
  return { ...inside, ...path, TMPDIR: "/tmp", TMP: "/tmp", TEMP: "/tmp" };
}

export function unwrapped(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const entries = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : [[name.startsWith(KEPT) ? name.slice(KEPT.length) : name, value] as const],
  );
  return Object.fromEntries(entries);
}

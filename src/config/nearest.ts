import { distance } from "fastest-levenshtein";

/** The known name that `written` was most likely meant to be, or undefined when none is near. Case and word separators count for nothing. */
export function nearest(written: string, known: readonly string[]): string | undefined {
  const wanted = plain(written);
  const allowed = Math.max(1, Math.floor(wanted.length / 3));
  let best: { name: string; distance: number } | undefined;
  const swapped = swaps(wanted);
  for (const name of known) {
    const steps = Math.min(distance(wanted, plain(name)), ...(swapped.has(plain(name)) ? [1] : []));
    if (steps <= allowed && (best === undefined || steps < best.distance)) best = { name, distance: steps };
  }
  return best?.name;
}

/** `name` with two neighbours changed over, each in turn: one slip of the fingers, and two steps for the distance. */
function swaps(name: string): ReadonlySet<string> {
  if (name.length > MAX_SWAPPED) return new Set();
  const letters = [...name];
  return new Set(
    letters.slice(1).map((letter, index) => {
      const before = letters[index] ?? "";
      return [...letters.slice(0, index), letter, before, ...letters.slice(index + 2)].join("");
    }),
  );
}

const MAX_SWAPPED = 64;

/** `; did you mean "launch"?`, or, where nothing is near, the choices there are: `; known here: launch, user`. */
export function suggestion(written: string, known: readonly string[]): string {
  const near = nearest(written, known);
  if (near !== undefined) return `; did you mean ${JSON.stringify(near)}?`;
  if (known.length === 0) return "";
  const shown = known.slice(0, MAX_CHOICES_SHOWN);
  return `; known here: ${shown.join(", ")}${known.length > shown.length ? ", …" : ""}`;
}

const MAX_CHOICES_SHOWN = 16;

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[-_ ]/g, "");
}

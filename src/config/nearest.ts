import { distance } from "fastest-levenshtein";

/** The known name that `written` was most likely meant to be, or undefined when none is near. Case and word separators count for nothing. */
function nearest(written: string, known: readonly string[]): string | undefined {
  const wanted = plain(written);
  const allowed = Math.max(1, Math.floor(wanted.length / 3));
  let best: { name: string; distance: number } | undefined;
  for (const name of known) {
    const steps = distance(wanted, plain(name));
    if (steps <= allowed && (best === undefined || steps < best.distance)) best = { name, distance: steps };
  }
  return best?.name;
}

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

/**
 * Parses JSON and refuses what two parsers could read differently: an object that has the same key twice.
 * Throws SyntaxError.
 */
export function parseStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  refuseDuplicateKeys(text);
  return value;
}

/** A JSON string, or a bracket or comma outside of one: all that is needed to follow valid JSON. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],]/g;

/** `text` is valid JSON. A string is a key if it comes right after `{`, or after `,` in an object. */
function refuseDuplicateKeys(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  let keyFollows = false;
  for (const [token] of text.matchAll(TOKEN)) {
    const keys = open[open.length - 1];
    switch (token) {
      case "{":
        open.push(new Set());
        keyFollows = true;
        break;
      case "[":
        open.push(undefined);
        keyFollows = false;
        break;
      case "}":
      case "]":
        open.pop();
        keyFollows = false;
        break;
      case ",":
        keyFollows = keys !== undefined;
        break;
      default:
        if (!keyFollows || keys === undefined) break;
        addKey(keys, JSON.parse(token) as string);
        keyFollows = false;
    }
  }
}

function addKey(keys: Set<string>, key: string): void {
  if (keys.has(key)) throw new SyntaxError(`duplicate key ${JSON.stringify(key)}`);
  keys.add(key);
}

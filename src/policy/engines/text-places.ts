/** `:3:5` of the byte at `offset`, from 1, columns in characters; empty where it is not known. */
export function placeIn(bytes: Uint8Array, offset: number | undefined): string {
  if (offset === undefined) return "";
  const { line, column } = positionIn(bytes, offset);
  return `:${line}:${column}`;
}

export function positionIn(bytes: Uint8Array, offset: number): { readonly line: number; readonly column: number } {
  const before = new TextDecoder().decode(bytes.subarray(0, offset));
  const start = before.lastIndexOf("\n") + 1;
  return { line: before.split("\n").length, column: before.length - start + 1 };
}

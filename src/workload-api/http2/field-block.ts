/** `:authority` in HPACK's static table (RFC 7541, Appendix A). */
const AUTHORITY = 1;
/**
 * What a path may hold and an authority may not (RFC 3986 §3.2; Node's HTTP/2 refuses it), save control characters, which stay and are refused. Each becomes
 * a "3": nothing reads the authority of a Unix socket.
 */
const NOT_OF_AUTHORITY = new Uint8Array(256).fill(1, 0x80);
for (const character of ' "#/<>?\\^`{|}') NOT_OF_AUTHORITY[character.charCodeAt(0)] = 1;
const REPLACEMENT = 0x33;
/**
 * Of those, by the length of their Huffman codes, the ones whose code is that of another symbol but for the last bit, so that no byte before the current one ever
 * changes: slash and 3, blank and %, " and !. The others stay and are refused: grpc-java writes no Huffman code below 512 bytes, and a path is shorter.
 */
const LAST_BIT_APART: Readonly<Record<number, readonly number[]>> = { 6: [0b011000, 0b010100], 10: [0b1111111001] };

/** An integer or a string that is longer is an error of its sender in any HTTP/2 that runs here. */
const MAX_INTEGER_BITS = 28;

/** How many symbols have a code of 0, 1, 2 … 30 bits (RFC 7541, Appendix B). The code is canonical: the lengths alone tell where each symbol ends. */
const HUFFMAN_SYMBOLS = [
  ...[0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3],
  ...[0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4],
];
/** For each length the code after its last one: bits below that, which are no shorter symbol, are a whole symbol. */
const HUFFMAN_END: number[] = [];
for (const count of HUFFMAN_SYMBOLS) HUFFMAN_END.push((HUFFMAN_END.at(-1) ?? 0) * 2 + count);

/**
 * Reads the field blocks of one direction of a connection, fragment by fragment, and overwrites what has no place there in the value of an `:authority` that is
 * written out. It keeps no dynamic table: an entry of the receiver's table comes from a literal that was changed on its way, so a later index finds the changed one.
 */
export interface FieldBlockReader {
  /** Reads `bytes` from `start` to `end`; false if this is not HPACK as it is known here, and nothing after can be told apart. */
  read(bytes: Buffer, start: number, end: number): boolean;
  /** True where a field block may end: between two field lines. */
  readonly complete: boolean;
  /** True once something was overwritten. */
  readonly changed: boolean;
}

type State = "field" | "integer" | "string" | "octets";
/** What the integer that is being read says. */
type Meaning = "nothing" | "name" | "length";

export function createFieldBlockReader(): FieldBlockReader {
  let state: State = "field";
  let meaning: Meaning = "nothing";
  let integer = 0;
  let integerBits = 0;
  let octetsLeft = 0;
  let string: "name" | "value" = "name";
  let isAuthority = false;
  let isHuffman = false;
  let code = 0;
  let codeLength = 0;
  let changed = false;

  function startInteger(byte: number, prefixBits: number, says: Meaning): boolean {
    const mask = (1 << prefixBits) - 1;
    meaning = says;
    integer = byte & mask;
    integerBits = 0;
    state = "integer";
    return integer < mask ? endInteger() : true;
  }

  function continueInteger(byte: number): boolean {
    if (integerBits >= MAX_INTEGER_BITS) return false;
    integer += (byte & 0x7f) * 2 ** integerBits;
    integerBits += 7;
    return byte < 0x80 ? endInteger() : true;
  }

  function endInteger(): boolean {
    if (meaning === "nothing") state = "field";
    else if (meaning === "name") {
      state = "string";
      string = integer === 0 ? "name" : "value";
      isAuthority = integer === AUTHORITY;
    } else {
      state = "octets";
      octetsLeft = integer;
      code = 0;
      codeLength = 0;
      if (octetsLeft === 0) endString();
    }
    return true;
  }

  function endString(): void {
    state = string === "name" ? "string" : "field";
    string = "value";
  }

  function startField(byte: number): boolean {
    if (byte >= 0x80) return startInteger(byte, 7, "nothing");
    if (byte >= 0x40) return startInteger(byte, 6, "name");
    if (byte >= 0x20) return startInteger(byte, 5, "nothing");
    return startInteger(byte, 4, "name");
  }

  function readOctets(bytes: Buffer, start: number, end: number): number {
    const stop = Math.min(end, start + octetsLeft);
    if (isAuthority) {
      for (let at = start; at < stop; at++) bytes[at] = ofAuthority(bytes[at] ?? 0);
    }
    octetsLeft -= stop - start;
    if (octetsLeft === 0) endString();
    return stop;
  }

  function ofAuthority(byte: number): number {
    if (isHuffman) return ofHuffmanAuthority(byte);
    if (NOT_OF_AUTHORITY[byte] === 0) return byte;
    changed = true;
    return REPLACEMENT;
  }

  function ofHuffmanAuthority(byte: number): number {
    let result = byte;
    for (let bit = 0x80; bit > 0; bit >>= 1) {
      code = code * 2 + ((byte & bit) === 0 ? 0 : 1);
      codeLength++;
      if (code >= (HUFFMAN_END[codeLength] ?? 0)) continue;
      // No symbol of another length has that code.
      if (LAST_BIT_APART[codeLength]?.includes(code) === true) {
        result ^= bit;
        changed = true;
      }
      code = 0;
      codeLength = 0;
    }
    return result;
  }

  function readByte(byte: number): boolean {
    switch (state) {
      case "field":
        return startField(byte);
      case "integer":
        return continueInteger(byte);
      default:
        isHuffman = byte >= 0x80;
        return startInteger(byte, 7, "length");
    }
  }

  return {
    read(bytes, start, end) {
      let at = start;
      while (at < end) {
        if (state === "octets") at = readOctets(bytes, at, end);
        else if (!readByte(bytes[at++] ?? 0)) return false;
      }
      return true;
    },
    get complete() {
      return state === "field";
    },
    get changed() {
      return changed;
    },
  };
}

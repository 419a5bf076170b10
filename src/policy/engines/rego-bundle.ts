import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { CodedError } from "../../coded-error.js";

const unzip = promisify(gunzip);
const MAX_UNPACKED = 64 * 1024 * 1024;
const BLOCK = 512;

export interface RegoBundle {
  readonly wasm: Uint8Array;
  /** `data.json` of the bundle, as JSON. */
  readonly data: string;
}

/** The compiled policy and its data in what `opa build -t wasm` writes. Throws CodedError `bundle-invalid`. */
export async function readRegoBundle(bytes: Uint8Array): Promise<RegoBundle> {
  let tar: Buffer;
  try {
    tar = await unzip(bytes, { maxOutputLength: MAX_UNPACKED });
  } catch (cause) {
    throw new CodedError("bundle-invalid", "not a bundle: opa build writes a .tar.gz", { cause });
  }
  const files = filesIn(tar);
  const wasm = files.get("policy.wasm");
  if (wasm === undefined) {
    throw new CodedError("bundle-invalid", "the bundle holds no policy.wasm", {
      hint: "build it by opa build -t wasm -e finance/allow …",
    });
  }
  // opa build puts all data into one file; what somebody packed beside it would be missing, and with it whatever denies by it.
  const other = [...files.keys()].find((name) => name !== "data.json" && /(?:^|\/)data\.(?:json|ya?ml)$/.test(name));
  if (other !== undefined) {
    throw new CodedError("bundle-invalid", `the bundle holds ${other}, and only its data.json is read`, {
      hint: "build it by opa build, which makes one of all data",
    });
  }
  return { wasm, data: new TextDecoder().decode(files.get("data.json") ?? Buffer.from("{}")) };
}

/** Regular files of an archive of POSIX.1-2001 by name, without the leading slash. */
function filesIn(tar: Buffer): ReadonlyMap<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (let at = 0; at + BLOCK <= tar.length; ) {
    const header = tar.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) break;
    const size = Number.parseInt(textIn(header, 124, 12), 8);
    const sum = header.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 32 : byte), 0);
    if (!(size >= 0) || Number.parseInt(textIn(header, 148, 8), 8) !== sum) {
      throw new CodedError("bundle-invalid", "the bundle's archive is damaged");
    }
    const name = nameIn(header).replace(/^\.?\//, "");
    const kind = header[156];
    const content = tar.subarray(at + BLOCK, at + BLOCK + size);
    if (content.length < size) throw new CodedError("bundle-invalid", "the bundle's archive ends early");
    if (kind === 0 || kind === 0x30) {
      // Which of the two an unpacker keeps differs.
      if (files.has(name)) throw new CodedError("bundle-invalid", `the bundle holds ${name} twice`);
      files.set(name, content);
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return files;
}

/** Long names are cut in two (ustar); those of extended headers are no names of what is read here. */
function nameIn(header: Buffer): string {
  const prefix = textIn(header, 257, 6) === "ustar" ? textIn(header, 345, 155) : "";
  return prefix === "" ? textIn(header, 0, 100) : `${prefix}/${textIn(header, 0, 100)}`;
}

function textIn(header: Buffer, start: number, length: number): string {
  const field = header.subarray(start, start + length);
  const end = field.indexOf(0);
  return field
    .subarray(0, end === -1 ? length : end)
    .toString("utf8")
    .trim();
}

import type * as Cedar from "@cedar-policy/cedar-wasm/nodejs";

export type CedarLibrary = typeof Cedar;

let loading: Promise<CedarLibrary> | undefined;

/** Cedar itself, 4 MB of WebAssembly: loaded when the first project uses it. */
export function cedarLibrary(): Promise<CedarLibrary> {
  loading ??= import("@cedar-policy/cedar-wasm/nodejs");
  return loading;
}

/**
 * Cedar keeps parsed policy sets and schemas by name and has no call that forgets one: names are used again. The least recently used give way,
 * and a set that was given up is parsed anew when it is asked for, so that an engine of an older project never judges by a newer one's policies.
 */
class Slots<Owner extends object> {
  readonly #names = new Map<Owner, string>();
  /** Nobody's at the moment. */
  readonly #free: string[];

  constructor(prefix: string, size: number) {
    this.#free = Array.from({ length: size }, (_, number) => `${prefix}${size - 1 - number}`);
  }

  /** The name under which `owner` is parsed; `parse` does it where it is not. Throws what `parse` throws. */
  nameOf(owner: Owner, parse: (name: string) => void): string {
    const known = this.#names.get(owner);
    if (known !== undefined) {
      // Last in the order of use.
      this.#names.delete(owner);
      this.#names.set(owner, known);
      return known;
    }
    const name = this.#freeName();
    try {
      parse(name);
    } catch (thrown) {
      this.#free.push(name);
      throw thrown;
    }
    this.#names.set(owner, name);
    return name;
  }

  #freeName(): string {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const [oldest] = this.#names;
    if (oldest === undefined) throw new Error("no names");
    this.#names.delete(oldest[0]);
    return oldest[1];
  }
}

export const policySetSlots = new Slots<object>("policies-", 1024);
export const schemaSlots = new Slots<object>("schema-", 32);

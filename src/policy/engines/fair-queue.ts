/** What waits for an engine, by who asked: each has a turn in order, so that whoever asks much makes only itself wait. */
export class FairQueue<Item> {
  /** In the order of their turns. */
  readonly #queues = new Map<string, Item[]>();
  readonly #most: { readonly each: number; readonly all: number };
  #length = 0;

  /** `each`: so many of one owner may wait; `all`: so many altogether. */
  constructor(most: { readonly each: number; readonly all: number }) {
    this.#most = most;
  }

  get length(): number {
    return this.#length;
  }

  /** False where no more of this owner, or of all together, may wait. */
  add(owner: string, item: Item): boolean {
    const queue = this.#queues.get(owner);
    if (this.#length >= this.#most.all || (queue?.length ?? 0) >= this.#most.each) return false;
    if (queue === undefined) this.#queues.set(owner, [item]);
    else queue.push(item);
    this.#length += 1;
    return true;
  }

  /** The next one, of the owner whose turn it is; its turn comes again after all others'. */
  next(): Item | undefined {
    const [first] = this.#queues;
    if (first === undefined) return undefined;
    const [owner, queue] = first;
    this.#queues.delete(owner);
    const item = queue.shift();
    if (queue.length > 0) this.#queues.set(owner, queue);
    this.#length -= 1;
    return item;
  }

  /** All that wait; then none does. */
  drain(): readonly Item[] {
    const all = [...this.#queues.values()].flat();
    this.#queues.clear();
    this.#length = 0;
    return all;
  }
}

import { randomBytes } from "node:crypto";

const CLOSE = 0x8;
const LONGEST_HEAD = 14;
/** RFC 6455 §7.4.1: an endpoint is going away. */
const GOING_AWAY = Buffer.from([0x03, 0xe9]);

/** Where one direction of a WebSocket stands (RFC 6455 §5.2): between two frames or inside one. Payloads are not looked at. */
export class FrameTracker {
  readonly #head = Buffer.alloc(LONGEST_HEAD);
  #headBytes = 0;
  #payloadLeft = 0;
  #closed = false;

  /** A frame may follow. */
  get isBetweenFrames(): boolean {
    return this.#headBytes === 0 && this.#payloadLeft === 0;
  }

  /** A Close has begun: nothing may follow it. */
  get isClosed(): boolean {
    return this.#closed;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payloadLeft > 0) {
        const taken = Math.min(this.#payloadLeft, chunk.length - at);
        this.#payloadLeft -= taken;
        at += taken;
        continue;
      }
      this.#head[this.#headBytes] = chunk[at] ?? 0;
      this.#headBytes += 1;
      at += 1;
      if (this.#headBytes >= 2 && this.#headBytes === this.#headLength()) this.#enterPayload();
    }
  }

  #headLength(): number {
    const second = this.#head[1] ?? 0;
    const length = second & 0x7f;
    return 2 + (length === 126 ? 2 : length === 127 ? 8 : 0) + (second & 0x80 ? 4 : 0);
  }

  #enterPayload(): void {
    const length = (this.#head[1] ?? 0) & 0x7f;
    // Beyond 2^53 nobody comes to the end.
    if (length === 127) this.#payloadLeft = Number(this.#head.readBigUInt64BE(2));
    else this.#payloadLeft = length === 126 ? this.#head.readUInt16BE(2) : length;
    this.#closed ||= ((this.#head[0] ?? 0) & 0x0f) === CLOSE;
    this.#headBytes = 0;
  }
}

/** A Close that says 1001, going away; what goes to a server is masked (§5.3). */
export function goingAway({ masked }: { readonly masked: boolean }): Buffer {
  if (!masked) return Buffer.from([0x80 | CLOSE, GOING_AWAY.length, ...GOING_AWAY]);
  const mask = randomBytes(4);
  const payload = GOING_AWAY.map((byte, index) => byte ^ (mask[index] ?? 0));
  return Buffer.from([0x80 | CLOSE, 0x80 | GOING_AWAY.length, ...mask, ...payload]);
}

import type { Clock } from "../platform/clock.js";
import { ByteRelay, type End, type RelayedBytes } from "./byte-relay.js";
import { FrameTracker, goingAway } from "./websocket-frames.js";

/** Without a byte from either side, a ping included: as long as a connection of a tcp service or a CONNECT. */
const IDLE_MS = 3_600_000;
/** How long both sides may take to close after they were told. */
const LINGER_MS = 5_000;
const NOTHING = Buffer.alloc(0);

/** The WebSockets that one relay carries. */
export interface OpenWebSockets {
  /**
   * Carries bytes between two ends that have agreed on a WebSocket, until both have closed it. Of the two legs that one has passed the one that has decided
   * `speaks`: what it says goes through the other one.
   */
  carry(caller: End, service: End, speaks: boolean): Promise<RelayedBytes>;
  /** Tells both ends of each that the relay is going away. */
  goAway(): void;
}

export function createOpenWebSockets(clock: Clock): OpenWebSockets {
  const open = new Set<OpenWebSocket>();
  return {
    async carry(caller, service, speaks) {
      const one = new OpenWebSocket(caller, service, clock, speaks);
      open.add(one);
      try {
        return await one.over;
      } finally {
        open.delete(one);
      }
    },
    goAway() {
      for (const one of open) one.goAway("going-away");
    },
  };
}

class OpenWebSocket {
  readonly over: Promise<RelayedBytes>;
  readonly #clock: Clock;
  readonly #speaks: boolean;
  readonly #relay: ByteRelay;
  /** Of what goes to the service, and to the caller. */
  readonly #frames = [new FrameTracker(), new FrameTracker()] as const;
  #touchedAt: number;
  #leaving: string | undefined;
  #cancelTimer = (): void => undefined;

  constructor(caller: End, service: End, clock: Clock, speaks: boolean) {
    this.#clock = clock;
    this.#speaks = speaks;
    this.#touchedAt = clock.now();
    this.#relay = new ByteRelay(caller, service, (from, chunk) => {
      this.#touchedAt = clock.now();
      if (!speaks) return;
      this.#frames[from].push(chunk);
      if (this.#leaving !== undefined) this.#leaveBetweenFrames(this.#leaving);
    });
    this.over = this.#relay.over.finally(() => this.#cancelTimer());
    this.#watchIdle();
  }

  /** Closes it with a frame that says so to each side; inside of a frame that is under way there is no place for one, so it waits for its end. */
  goAway(reason: string): void {
    if (!this.#speaks || this.#leaving !== undefined) return;
    this.#leaving = reason;
    this.#leaveBetweenFrames(reason);
  }

  #leaveBetweenFrames(reason: string): void {
    if (this.#frames.some((one) => !one.isBetweenFrames)) return;
    const [toService, toCaller] = this.#frames;
    this.#relay.finish(reason, [
      toCaller.isClosed ? NOTHING : goingAway({ masked: false }),
      toService.isClosed ? NOTHING : goingAway({ masked: true }),
    ]);
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(LINGER_MS, () => this.#relay.breakOff(reason));
  }

  #watchIdle(): void {
    // Where the other leg was to speak, it has: who has not closed by then does not.
    const patience = this.#speaks ? IDLE_MS : IDLE_MS + 2 * LINGER_MS;
    const left = this.#touchedAt + patience - this.#clock.now();
    if (left > 0) this.#cancelTimer = this.#clock.after(left, () => this.#watchIdle());
    // Who has been in the middle of a frame for so long does not come to its end.
    else if (this.#speaks && this.#frames.every((one) => one.isBetweenFrames)) this.goAway("idle-timeout");
    else this.#relay.breakOff("idle-timeout");
  }
}

import { SpiffeWorkloadAPIService as Api, type X509SVIDResponse } from "../workload-api/generated/workload.js";
import { Failed } from "./check.js";
import type { Context } from "./context.js";
import { described } from "./probe.js";

/** What an open FetchX509SVID stream brought around a rotation. */
export interface Rotation {
  readonly before: X509SVIDResponse;
  /** The first message with another certificate than before. */
  readonly after: X509SVIDResponse;
}

/** Opens a stream, has the SVIDs replaced and waits for the message that says so. Throws Failed if none comes. */
export async function observeRotation(context: Context, rotate: () => Promise<void>): Promise<Rotation> {
  // Without any, there is nothing to be replaced.
  context.svids();
  const stream = context.connect().follow(Api.fetchX509Svid, {});
  const first = await stream.next();
  if (!("message" in first)) throw new Failed(`the stream ended with ${described(first)}`);
  await rotate();
  const before = new Set(first.message.svids.map(({ x509Svid }) => x509Svid.toString("hex")));
  for (;;) {
    const received = await stream.next(context.options.changeDeadlineMs);
    if (!("message" in received)) throw new Failed(`the stream ended with ${described(received)} after the rotation`);
    const { message } = received;
    if (message.svids.every(({ x509Svid }) => before.has(x509Svid.toString("hex")))) continue;
    stream.cancel();
    return { before: first.message, after: message };
  }
}

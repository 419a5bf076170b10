import { status } from "@grpc/grpc-js";
import { SpiffeWorkloadAPIService as Api, type X509SVIDResponse } from "../workload-api/generated/workload.js";
import { Failed } from "./check.js";
import type { Context } from "./context.js";
import type { Ended } from "./grpc-connection.js";
import { type Answer, described, type Followed } from "./probe.js";
import { AUDIENCE } from "./token-parts.js";

/** What was seen while the identities of this process were taken away and given back. `undefined`: it did not come in time. */
export interface Removal {
  /** The first of several identities that was taken; undefined where there was only one. */
  readonly removed: string | undefined;
  /** The first message after that without it. */
  readonly message: X509SVIDResponse | undefined;
  /** The identities that it should have held. */
  readonly kept: readonly string[];
  /** How the X.509-SVID stream ended when the last identity was gone. */
  readonly svidStream: Ended | undefined;
  /** Both bundle streams were open before anything was removed, or not served at all. */
  readonly bundleStreamsStayed: boolean;
  readonly x509BundleStream: Ended | undefined;
  readonly jwtBundleStream: Ended | undefined;
  /** New calls while there was no identity. */
  readonly x509Svid: Answer<unknown>;
  readonly x509Bundles: Answer<unknown>;
  readonly jwtBundles: Answer<unknown>;
  readonly jwtSvid: Answer<unknown>;
  /** ValidateJWTSVID of a good token; undefined where none could be had before. */
  readonly validation: Answer<unknown> | undefined;
}

interface RemovalHooks {
  remove(id: string): Promise<void>;
  restore(id: string): Promise<void>;
}

/** Takes one identity away, then all, looks, and gives them back whatever happens. */
export async function observeRemoval(context: Context, hooks: RemovalHooks): Promise<Removal> {
  const ids = [...new Set(context.svids().map(({ spiffeId }) => spiffeId))];
  const taken: string[] = [];
  const remove = async (id: string): Promise<void> => {
    taken.push(id);
    await hooks.remove(id);
  };
  try {
    return await observe(context, ids, remove);
  } finally {
    for (const id of taken) await hooks.restore(id);
    await untilRestored(context, ids);
  }
}

async function observe(
  context: Context,
  ids: readonly string[],
  remove: (id: string) => Promise<void>,
): Promise<Removal> {
  const probe = context.connect();
  const token = (await context.tokens().catch(() => []))[0]?.svid;
  const svids = probe.follow(Api.fetchX509Svid, {});
  const x509 = probe.follow(Api.fetchX509Bundles, {});
  const jwt = probe.follow(Api.fetchJwtBundles, {});
  for (const stream of [svids, x509, jwt]) await stream.next();
  // A round trip later, a stream that ends with its first message has ended.
  await probe.ask(Api.fetchX509Svid, {});
  const bundleStreamsStayed = [x509, jwt].every(({ over }) => over === undefined || over.status !== status.OK);

  const removed = ids.length > 1 ? ids[ids.length - 1] : undefined;
  const kept = ids.filter((id) => id !== removed);
  let message: X509SVIDResponse | undefined;
  if (removed !== undefined) {
    await remove(removed);
    message = await firstWithout(svids, removed, context.options.changeDeadlineMs);
  }
  for (const id of kept) await remove(id);
  const svidStream = await endOf(svids, context.options.changeDeadlineMs);
  const asked = {
    x509Svid: await probe.ask(Api.fetchX509Svid, {}),
    x509Bundles: await probe.ask(Api.fetchX509Bundles, {}),
    jwtBundles: await probe.ask(Api.fetchJwtBundles, {}),
    jwtSvid: await probe.ask(Api.fetchJwtsvid, { audience: [AUDIENCE], spiffeId: "" }),
    validation:
      token === undefined ? undefined : await probe.ask(Api.validateJwtsvid, { audience: AUDIENCE, svid: token }),
  };
  // A stream that is still granted stays open for good: nobody waits for its end.
  const x509BundleStream = asked.x509Bundles.ok ? x509.over : await endOf(x509, context.options.changeDeadlineMs);
  const jwtBundleStream = asked.jwtBundles.ok ? jwt.over : await endOf(jwt, context.options.changeDeadlineMs);
  for (const stream of [svids, x509, jwt]) stream.cancel();
  return { removed, message, kept, svidStream, bundleStreamsStayed, x509BundleStream, jwtBundleStream, ...asked };
}

async function firstWithout(
  stream: Followed<X509SVIDResponse>,
  removed: string,
  deadlineMs: number,
): Promise<X509SVIDResponse | undefined> {
  for (;;) {
    const received = await orNothing(stream.next(deadlineMs));
    if (received === undefined || !("message" in received)) return undefined;
    if (received.message.svids.every(({ spiffeId }) => spiffeId !== removed)) return received.message;
  }
}

async function endOf(stream: Followed<unknown>, deadlineMs: number): Promise<Ended | undefined> {
  for (;;) {
    const received = await orNothing(stream.next(deadlineMs));
    if (received === undefined || !("message" in received)) return received;
  }
}

function orNothing<T>(promise: Promise<T>): Promise<T | undefined> {
  return promise.catch((thrown: unknown) => {
    if (thrown instanceof Failed) return undefined;
    throw thrown;
  });
}

const POLL_MS = 100;

/** No stream tells a caller without an identity that it has one again, so it asks. Throws Failed. */
async function untilRestored(context: Context, ids: readonly string[]): Promise<void> {
  const { clock, changeDeadlineMs } = context.options;
  const deadline = clock.now() + changeDeadlineMs;
  for (;;) {
    const answer = await context.probe.ask(Api.fetchX509Svid, {});
    const given = answer.ok ? answer.message.svids.map(({ spiffeId }) => spiffeId) : [];
    if (ids.every((id) => given.includes(id))) return;
    if (!answer.ok && answer.status !== status.PERMISSION_DENIED && answer.status !== status.UNAVAILABLE) {
      throw new Failed(`after the identities were given back FetchX509SVID answers ${described(answer)}`);
    }
    if (clock.now() > deadline) throw new Failed("the identities that were given back did not come");
    await new Promise<void>((resolve) => clock.after(POLL_MS, resolve));
  }
}

import { status } from "@grpc/grpc-js";
import { SpiffeWorkloadAPIService as Api, type X509SVIDResponse } from "../workload-api/generated/workload.js";
import { type Check, problemsOf, skip } from "./check.js";
import type { Context } from "./context.js";
import { described, nameOf, statusOf, UNKNOWN_METHOD } from "./probe.js";

/** What is still "as soon as possible, without delay". */
const PROMPT_MS = 2_000;
const SLOWER_THAN_A_REFUSAL = 20;

export const streamChecks: readonly Check[] = [
  {
    id: "ST-1",
    level: "M",
    sentence: "The first message is sent immediately on each stream",
    source: "WA §4.3",
    async run({ probe }) {
      const [svids, x509, jwt] = await Promise.all([
        probe.ask(Api.fetchX509Svid, {}),
        probe.ask(Api.fetchX509Bundles, {}),
        probe.ask(Api.fetchJwtBundles, {}),
      ]);
      const answers = [
        { name: nameOf(Api.fetchX509Svid), answer: svids },
        { name: nameOf(Api.fetchX509Bundles), answer: x509 },
        { name: nameOf(Api.fetchJwtBundles), answer: jwt },
      ];
      if (answers.every(({ answer }) => !answer.ok)) skip("no stream brings a message");
      // On a machine that is busy with other things everything takes its time.
      const { afterMs: roundTripMs } = await probe.ask(UNKNOWN_METHOD, {});
      const longestMs = Math.max(PROMPT_MS, SLOWER_THAN_A_REFUSAL * roundTripMs);
      return problemsOf(answers, ({ name, answer }) =>
        answer.ok && answer.afterMs > longestMs ? `the first message of ${name} took ${answer.afterMs} ms` : undefined,
      );
    },
  },
  {
    id: "ST-2",
    level: "M",
    sentence: "Every message is the complete state, never a delta",
    source: "WA §4.3",
    async run(context) {
      const expected = context.svids().map(({ spiffeId }) => spiffeId);
      const probe = context.connect();
      const problems: string[] = [];
      for (const which of ["first", "second"]) {
        const answer = await probe.ask(Api.fetchX509Svid, {});
        if (!answer.ok) skip(`FetchX509SVID answers ${described(answer)}`);
        problems.push(...missing(expected, idsOf(answer.message), `the ${which} stream of a connection`));
      }
      const rotation = await context.rotationIfSeen();
      if (rotation === undefined) return problems;
      const { before, after } = rotation;
      return [...problems, ...missing(idsOf(before), idsOf(after), "the message after a rotation")];
    },
  },
  {
    id: "ST-3",
    level: "S",
    sentence: "A message follows a rotation of the SVIDs",
    source: "WA §4.3",
    async run(context) {
      await context.rotation();
      return [];
    },
  },
  {
    id: "ST-10",
    level: "I",
    sentence: "Bundle streams stay open",
    source: "go-spiffe reconnects in a loop otherwise",
    prepare: async (context) => void (await context.bundleWatch()),
    async run(context) {
      const { x509, jwt } = await context.bundleWatch();
      if (x509 === undefined && jwt === undefined) skip("no bundle stream brings a message");
      const streams = [
        { name: "FetchX509Bundles", over: x509?.over },
        { name: "FetchJWTBundles", over: jwt?.over },
      ];
      return problemsOf(streams, ({ name, over }) => over && `${name} ended with ${described(over)}`);
    },
  },
  {
    id: "ST-11",
    level: "I",
    sentence: "Unchanged bundles are not sent again",
    source: "spire pkg/agent/endpoints/workload/handler.go",
    prepare: async (context) => void (await context.bundleWatch()),
    async run(context) {
      const { x509, jwt } = await context.bundleWatch();
      if (x509 === undefined && jwt === undefined) skip("no bundle stream brings a message");
      const x509Texts = x509?.messages().map(({ bundles, crl }) => [entriesOf(bundles), ...crl.map(hex)].join("\n"));
      const jwtTexts = jwt?.messages().map(({ bundles }) => entriesOf(bundles));
      return [...repeated(x509Texts ?? [], "FetchX509Bundles"), ...repeated(jwtTexts ?? [], "FetchJWTBundles")];
    },
  },
  // From here on identities are taken away and given back.
  {
    id: "ST-5",
    level: "M",
    sentence: "When one of several identities is removed the next message omits it",
    source: "WA §4.4, §5.2.1",
    async run(context) {
      const { removed, message, kept } = await context.removal();
      if (removed === undefined) skip("this process has one identity only");
      if (message === undefined) return [`no message without ${removed} came after it was removed`];
      return missing(kept, idsOf(message), `the message after ${removed} was removed`);
    },
  },
  {
    id: "ST-6",
    level: "S",
    sentence: "When the last identity is removed the stream ends with PermissionDenied",
    source: "WA §5.2.1",
    async run(context) {
      const { svidStream } = await context.removal();
      if (svidStream === undefined) return ["the stream stayed open"];
      return svidStream.status === status.PERMISSION_DENIED ? [] : [`the stream ended with ${described(svidStream)}`];
    },
  },
  {
    id: "ST-7",
    level: "S",
    sentence: "Bundle streams end with PermissionDenied when access to bundles is withdrawn",
    source: "WA §5.2.2, §6.2.2",
    async run(context) {
      const { bundleStreamsStayed, x509Bundles, jwtBundles, x509BundleStream, jwtBundleStream } =
        await context.removal();
      if (!bundleStreamsStayed) skip("bundle streams do not stay open: ST-10");
      // A server may let everybody verify: then nothing is withdrawn.
      const streams = [
        { name: "FetchX509Bundles", answer: x509Bundles, end: x509BundleStream },
        { name: "FetchJWTBundles", answer: jwtBundles, end: jwtBundleStream },
      ].filter(({ answer }) => !answer.ok && answer.status !== status.UNIMPLEMENTED);
      if (streams.length === 0) skip("bundles are given without an identity");
      return problemsOf(streams, ({ name, end }) => {
        if (end === undefined) return `${name} stayed open`;
        return end.status === status.PERMISSION_DENIED ? undefined : `${name} ended with ${described(end)}`;
      });
    },
  },
  {
    id: "EP-10",
    level: "S",
    sentence: "A known caller without an identity is PermissionDenied",
    source: "WE §6",
    async run(context) {
      const { jwtSvid } = await context.removal();
      if (statusOf(jwtSvid) === status.UNIMPLEMENTED) skip("the JWT profile is not served: WR-5");
      return deniedOrProblem("FetchJWTSVID", statusOf(jwtSvid), described(jwtSvid));
    },
  },
  {
    id: "XR-12",
    level: "S",
    sentence: "Without an identity FetchX509SVID and FetchX509Bundles are PermissionDenied",
    source: "WA §5.2.1-2",
    async run(context) {
      const { x509Svid, x509Bundles } = await context.removal();
      return [
        ...deniedOrProblem("FetchX509SVID", statusOf(x509Svid), described(x509Svid)),
        ...deniedOrProblem("FetchX509Bundles", statusOf(x509Bundles), described(x509Bundles)),
      ];
    },
  },
  {
    id: "JR-14",
    level: "I",
    sentence: "ValidateJWTSVID works for a caller without an identity",
    source: "spire pkg/agent/endpoints/workload/handler.go",
    async run(context) {
      const { validation } = await context.removal();
      if (validation === undefined) skip("there was no token to validate");
      // A server may know that whose identity was taken away is not to be believed: a word on the token, not on who asks.
      if (statusOf(validation) === status.INVALID_ARGUMENT)
        skip(`the token is not good any more: ${described(validation)}`);
      return validation.ok ? [] : [`a good token is answered with ${described(validation)}`];
    },
  },
  // Last of all: a server that fails it may fail whatever comes after it.
  {
    id: "ST-8",
    level: "M",
    sentence: "A cancel or disconnect releases the state of the stream: the server goes on as before",
    source: "WA App. A states 6-7",
    run: cancelMany,
  },
];

/** Fewer would not reach any limit, more would ask too much of a server that has none. */
const MOST_STREAMS = 250;
const FEWEST_STREAMS = 100;
const AT_ONCE = 25;
const DROPPED_CONNECTIONS = 25;

/** Twice as many streams as one connection may have, each cancelled after its first message; then connections that vanish; then an ordinary call. */
async function cancelMany(context: Context): Promise<readonly string[]> {
  const probe = context.connect();
  const control = await probe.ask(Api.fetchX509Bundles, {});
  if (!control.ok) skip(`FetchX509Bundles answers ${described(control)}`);
  const limit = Math.min(Math.max(probe.maxConcurrentStreams, FEWEST_STREAMS), MOST_STREAMS);
  for (let done = 0; done < 2 * limit; done += AT_ONCE) {
    const asked = Array.from({ length: AT_ONCE }, () => probe.ask(Api.fetchX509Bundles, {}));
    const refused = (await Promise.all(asked)).find((answer) => !answer.ok);
    if (refused !== undefined)
      return [`after ${done} cancelled streams FetchX509Bundles answers ${described(refused)}`];
  }
  await Promise.all(
    Array.from({ length: DROPPED_CONNECTIONS }, async () => {
      const dropped = context.connect();
      await dropped.follow(Api.fetchX509Bundles, {}).next();
      dropped.drop();
    }),
  );
  const last = await context.connect().ask(Api.fetchX509Bundles, {});
  return last.ok
    ? []
    : [`after ${DROPPED_CONNECTIONS} dropped connections FetchX509Bundles answers ${described(last)}`];
}

function idsOf({ svids }: Pick<X509SVIDResponse, "svids">): readonly string[] {
  return svids.map(({ spiffeId }) => spiffeId);
}

function missing(expected: readonly string[], found: readonly string[], where: string): readonly string[] {
  return problemsOf(expected, (id) => (found.includes(id) ? undefined : `${where} lacks ${id}`));
}

function deniedOrProblem(rpc: string, code: status, what: string): readonly string[] {
  return code === status.PERMISSION_DENIED ? [] : [`${rpc} without an identity answers ${what}`];
}

function repeated(messages: readonly string[], rpc: string): readonly string[] {
  const twice = messages.filter((text, index) => index > 0 && text === messages[index - 1]).length;
  return twice === 0 ? [] : [`${rpc} sent ${twice} messages that said what the one before them said`];
}

/** A map has no order on the wire. */
function entriesOf(bundles: Readonly<Record<string, Buffer>>): string {
  const lines = Object.entries(bundles).map(([key, bundle]) => `${key} ${hex(bundle)}`);
  return lines.sort().join("\n");
}

function hex(bytes: Buffer): string {
  return bytes.toString("hex");
}

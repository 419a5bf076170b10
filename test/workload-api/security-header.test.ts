import { type ClientReadableStream, credentials, Metadata, makeClientConstructor, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HealthClient, HealthCheckResponse_ServingStatus as Serving } from "../../src/workload-api/generated/health.js";
import { type SpiffeWorkloadAPIClient, SpiffeWorkloadAPIService } from "../../src/workload-api/generated/workload.js";
import { requireSecurityHeader } from "../../src/workload-api/security-header.js";
import { verifies } from "../requirements/verifies.js";
import { type Received, receive } from "./received.js";
import { identity, type RunningApi, runApi, secure } from "./running-api.js";

type InterceptedCall = Parameters<typeof requireSecurityHeader>[1];
type CallListener = Parameters<InterceptedCall["start"]>[0];

let running: RunningApi;
beforeAll(async () => {
  running = await runApi({ identities: [identity("agents/billing")] });
});
afterAll(() => running.close());

type Client = SpiffeWorkloadAPIClient;
const streams: Record<string, (client: Client, metadata: Metadata) => ClientReadableStream<unknown>> = {
  FetchX509SVID: (client, metadata) => client.fetchX509Svid({}, metadata),
  FetchX509Bundles: (client, metadata) => client.fetchX509Bundles({}, metadata),
  FetchJWTBundles: (client, metadata) => client.fetchJwtBundles({}, metadata),
  FetchWITSVID: (client, metadata) => client.fetchWitsvid({ spiffeId: "" }, metadata),
  FetchWITBundles: (client, metadata) => client.fetchWitBundles({}, metadata),
};

function jwtStatus(metadata: Metadata): Promise<status> {
  return new Promise((resolve) => {
    running
      .client()
      .fetchJwtsvid({ audience: ["a"], spiffeId: "" }, metadata, (error) => resolve(error?.code ?? status.OK));
  });
}

function validateStatus(metadata: Metadata): Promise<status> {
  return new Promise((resolve) => {
    // Empty arguments are InvalidArgument too, so a valid header must be seen to get further than these.
    running
      .client()
      .validateJwtsvid({ audience: "a", svid: "x" }, metadata, (error) => resolve(error?.code ?? status.OK));
  });
}

async function firstOf(stream: Received<unknown>): Promise<status> {
  const message = stream.next().then(
    () => status.OK,
    () => undefined,
  );
  const first = (await message) ?? (await stream.ended).code;
  stream.cancel();
  return first;
}

const wrong: [string, Metadata][] = [
  ["missing", new Metadata()],
  ["True", secure("True")],
  ["TRUE", secure("TRUE")],
  ["1", secure("1")],
  ["empty", secure("")],
  ["false", secure("false")],
  ["repeated", secure(["true", "true"])],
];

describe("the security header", () => {
  it.each(Object.keys(streams))(`${verifies("EP-4", "EP-5")} is demanded by the stream %s`, async (rpc) => {
    const client = running.client();
    const open = streams[rpc];
    if (open === undefined) throw new Error(rpc);
    for (const [, metadata] of wrong) {
      expect(await firstOf(receive(open(client, metadata)))).toBe(status.INVALID_ARGUMENT);
    }
    expect(await firstOf(receive(open(client, secure())))).toBe(status.OK);
  });

  it.each(wrong)(`${verifies("EP-4", "EP-5")} is demanded by the unary RPCs: %s`, async (_, metadata) => {
    expect(await jwtStatus(metadata)).toBe(status.INVALID_ARGUMENT);
    expect(await validateStatus(metadata)).toBe(status.INVALID_ARGUMENT);
    expect(await jwtStatus(secure())).toBe(status.OK);
  });

  it(`${verifies("EP-4")} is looked at before the request's body`, async () => {
    const raw = rawClient(running.path);
    const malformed = Buffer.from([0x0a, 0xff]);
    expect(await raw.send("FetchJWTSVID", malformed, new Metadata())).toBe(status.INVALID_ARGUMENT);
    // The control: with the header it is the body that is refused.
    expect(await raw.send("FetchJWTSVID", malformed, secure())).toBe(status.INTERNAL);
    raw.close();
  });

  it(`${verifies("EP-6")} is not demanded by health`, async () => {
    const health = new HealthClient(`unix:${running.path}`, credentials.createInsecure());
    const check = (service: string) =>
      new Promise((resolve) =>
        health.check({ service }, (error, answer) => resolve(error === null ? answer.status : error.code)),
      );
    expect(await check("")).toBe(Serving.SERVING);
    expect(await check("SpiffeWorkloadAPI")).toBe(Serving.SERVING);
    expect(await check("elsewhere")).toBe(status.NOT_FOUND);
    const watch = receive(health.watch({ service: "" }));
    expect((await watch.next()).status).toBe(Serving.SERVING);
    watch.cancel();
    health.close();
  });
});

describe("the service", () => {
  it(`${verifies("EP-8")} has the standard's seven methods and no other, without a package`, () => {
    expect(Object.values(SpiffeWorkloadAPIService).map(({ path }) => path)).toEqual([
      "/SpiffeWorkloadAPI/FetchX509SVID",
      "/SpiffeWorkloadAPI/FetchX509Bundles",
      "/SpiffeWorkloadAPI/FetchJWTSVID",
      "/SpiffeWorkloadAPI/FetchJWTBundles",
      "/SpiffeWorkloadAPI/ValidateJWTSVID",
      "/SpiffeWorkloadAPI/FetchWITSVID",
      "/SpiffeWorkloadAPI/FetchWITBundles",
    ]);
  });

  it(`${verifies("EP-11")} answers Unimplemented to what it does not know`, async () => {
    const raw = rawClient(running.path);
    expect(await raw.send("Nonsense", Buffer.alloc(0), secure())).toBe(status.UNIMPLEMENTED);
    expect(await raw.send("FetchJWTSVID", Buffer.from([0x0a, 0x01, 0x61]), secure())).toBe(status.OK);
    raw.close();
  });
});

describe("a call that was cancelled", () => {
  it("hears nothing more of what was read before, and one that was not hears all of it", () => {
    const passedOn = (cancel: boolean): string[] => {
      const heard: string[] = [];
      let listener: CallListener | undefined;
      const call = {
        start: (given: CallListener) => {
          listener = given;
        },
      } as InterceptedCall;
      const method = { path: SpiffeWorkloadAPIService.fetchJwtsvid.path, requestStream: false, responseStream: false };
      const checked = requireSecurityHeader(method as Parameters<typeof requireSecurityHeader>[0], call);
      checked.start({
        onReceiveMetadata: () => heard.push("metadata"),
        onReceiveMessage: () => heard.push("message"),
        onReceiveHalfClose: () => heard.push("end"),
        onCancel: () => heard.push("cancel"),
      });
      listener?.onReceiveMetadata(secure());
      if (cancel) listener?.onCancel();
      listener?.onReceiveMessage({});
      listener?.onReceiveHalfClose();
      return heard;
    };
    expect(passedOn(false)).toEqual(["metadata", "message", "end"]);
    expect(passedOn(true)).toEqual(["metadata", "cancel"]);
  });
});

/** Calls any method with any bytes. */
function rawClient(path: string) {
  const asIs = (bytes: Buffer) => bytes;
  const method = (name: string) => ({
    path: `/SpiffeWorkloadAPI/${name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  });
  const Raw = makeClientConstructor({ Nonsense: method("Nonsense") }, "Raw");
  const client = new Raw(`unix:${path}`, credentials.createInsecure());
  return {
    send: (name: string, body: Buffer, metadata: Metadata) =>
      new Promise<status>((resolve) => {
        client.makeUnaryRequest(method(name).path, asIs, asIs, body, metadata, (error) =>
          resolve(error?.code ?? status.OK),
        );
      }),
    close: () => client.close(),
  };
}

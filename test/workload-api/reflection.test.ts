import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type ClientDuplexStream, credentials, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  ServerReflectionClient,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from "../../src/workload-api/generated/grpc/reflection/v1/reflection.js";
import { ServerReflectionClient as ServerReflectionV1AlphaClient } from "../../src/workload-api/generated/grpc/reflection/v1alpha/reflection.js";
import { SpiffeWorkloadAPIService } from "../../src/workload-api/generated/workload.js";
import { verifies } from "../requirements/verifies.js";
import { type Received, receive } from "./received.js";
import { identity, type RunningApi, runApi } from "./running-api.js";

let running: RunningApi;
beforeAll(async () => {
  running = await runApi({ identities: [identity("agents/billing", { uid: 4_000_000_000 })] });
});
afterAll(() => running.close());

interface Conversation {
  ask(question: Partial<ServerReflectionRequest>): Promise<ServerReflectionResponse>;
  readonly received: Received<ServerReflectionResponse>;
  readonly stream: ClientDuplexStream<ServerReflectionRequest, ServerReflectionResponse>;
}

/** One stream, asked one question after the other, without any metadata. */
async function converse(
  talk: (conversation: Conversation) => Promise<void>,
  Client: typeof ServerReflectionClient | typeof ServerReflectionV1AlphaClient = ServerReflectionClient,
): Promise<void> {
  const client = new Client(`unix:${running.path}`, credentials.createInsecure());
  const stream = client.serverReflectionInfo();
  const received = receive(stream);
  await talk({
    ask(question) {
      stream.write({ host: "", ...question });
      return received.next();
    },
    received,
    stream,
  }).finally(() => client.close());
}

function filesIn(response: ServerReflectionResponse) {
  const files = response.fileDescriptorResponse?.fileDescriptorProto ?? [];
  return files.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
}

describe.each([
  ["v1", ServerReflectionClient],
  ["v1alpha", ServerReflectionV1AlphaClient],
] as const)("gRPC Server Reflection %s", (_version, Client) => {
  it(`${verifies("EP-6", "EP-7")} lists the services, without the security header`, () =>
    converse(async ({ ask }) => {
      const { listServicesResponse, originalRequest } = await ask({ listServices: "*", host: "here" });
      expect(originalRequest).toMatchObject({ listServices: "*", host: "here" });
      expect(listServicesResponse?.service.map(({ name }) => name)).toEqual([
        "SpiffeWorkloadAPI",
        "envoy.service.secret.v3.SecretDiscoveryService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
      ]);
    }, Client));

  it(`${verifies("EP-7", "EP-8")} describes the methods as they are served`, () =>
    converse(async ({ ask }) => {
      const [workload, ...imports] = filesIn(await ask({ fileContainingSymbol: "SpiffeWorkloadAPI" }));
      expect(imports.map(({ name }) => name)).toEqual(["google/protobuf/struct.proto"]);
      const described = workload?.service[0]?.method.map(({ name, serverStreaming }) => [name, serverStreaming]);
      const served = Object.values(SpiffeWorkloadAPIService).map(({ path, responseStream }) => [
        path.split("/").at(-1),
        responseStream,
      ]);
      expect(described).toEqual(served);
    }, Client));
});

describe("what reflection describes", () => {
  it("is whole: every service with everything it needs", () =>
    converse(async ({ ask }) => {
      const { listServicesResponse } = await ask({ listServices: "" });
      const files = new Map<string, ReturnType<typeof filesIn>[number]>();
      for (const { name } of listServicesResponse?.service ?? []) {
        for (const file of filesIn(await ask({ fileContainingSymbol: name }))) files.set(file.name, file);
      }
      const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: inOrder([...files.values()]) }));
      for (const { name } of listServicesResponse?.service ?? []) {
        expect(registry.getService(name)?.methods.length).toBeGreaterThan(0);
      }
      expect(registry.getMessage("envoy.extensions.transport_sockets.tls.v3.Secret")).toBeUndefined();
    }));

  it("sends a file once a stream, except to whom asks for that very file", () =>
    converse(async ({ ask }) => {
      const names = async (question: Partial<ServerReflectionRequest>) =>
        filesIn(await ask(question)).map(({ name }) => name);
      expect(await names({ fileByFilename: "google/rpc/status.proto" })).toEqual([
        "google/rpc/status.proto",
        "google/protobuf/any.proto",
      ]);
      expect(await names({ fileContainingSymbol: "google.rpc.Status.code" })).toEqual(["google/rpc/status.proto"]);
    }));

  it("finds files, services, methods, messages, fields, enums and their values; and says what it does not know", () =>
    converse(async ({ ask }) => {
      for (const symbol of [
        "SpiffeWorkloadAPI.FetchX509SVID",
        "grpc.health.v1.HealthCheckResponse",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
        "grpc.health.v1.HealthCheckResponse.SERVING",
        "X509SVID.spiffe_id",
      ]) {
        expect(filesIn(await ask({ fileContainingSymbol: symbol })).length, symbol).toBeGreaterThan(0);
      }
      const { allExtensionNumbersResponse } = await ask({ allExtensionNumbersOfType: "X509SVID" });
      expect(allExtensionNumbersResponse).toEqual({ baseTypeName: "X509SVID", extensionNumber: [] });
      for (const question of [
        { fileByFilename: "../workload.proto" },
        { fileContainingSymbol: "SpiffeWorkloadAPI.Nonsense" },
        { fileContainingExtension: { containingType: "X509SVID", extensionNumber: 100 } },
        { allExtensionNumbersOfType: "Nonsense" },
      ]) {
        expect((await ask(question)).errorResponse?.errorCode).toBe(status.NOT_FOUND);
      }
    }));

  it("refuses a request without a question; a stream that the client ends is ended", async () => {
    await converse(async ({ stream, received }) => {
      stream.write({ host: "" });
      expect((await received.ended).code).toBe(status.INVALID_ARGUMENT);
    });
    await converse(async ({ ask, stream, received }) => {
      await ask({ listServices: "" });
      stream.end();
      expect((await received.ended).code).toBe(status.OK);
    });
  });
});

/** Files after those that they import, as a registry wants them. */
function inOrder(files: ReturnType<typeof filesIn>): ReturnType<typeof filesIn> {
  const ordered: typeof files = [];
  const visit = (file: (typeof files)[number]) => {
    if (ordered.includes(file)) return;
    for (const imported of files) if (file.dependency.includes(imported.name)) visit(imported);
    ordered.push(file);
  };
  for (const file of files) visit(file);
  return ordered;
}

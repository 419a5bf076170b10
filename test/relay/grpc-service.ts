import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { shop } from "./running-relay.js";

const bytes = { serialize: (value: Buffer) => value, deserialize: (value: Buffer) => value };
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  ...{ path: `/shop.Ledger/${name}`, requestStream, responseStream },
  ...{ requestSerialize: bytes.serialize, requestDeserialize: bytes.deserialize },
  ...{ responseSerialize: bytes.serialize, responseDeserialize: bytes.deserialize },
});

/** One method of each kind, over messages that are plain bytes. */
const ledger = {
  Get: method("Get", false, false),
  Add: method("Add", true, false),
  List: method("List", false, true),
  Follow: method("Follow", true, true),
  Secret: method("Secret", false, false),
};

export type LedgerClient = grpc.Client & {
  Get: UnaryCall;
  Secret: UnaryCall;
  Add(metadata: grpc.Metadata, callback: Answered): grpc.ClientWritableStream<Buffer>;
  List(request: Buffer, metadata?: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<Buffer>;
  Follow(metadata?: grpc.Metadata): grpc.ClientDuplexStream<Buffer, Buffer>;
};
type Answered = (error: grpc.ServiceError | null, value?: Buffer) => void;
type UnaryCall = (
  request: Buffer,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  callback: Answered,
) => grpc.ClientUnaryCall;

const Client = grpc.makeGenericClientConstructor(ledger, "Ledger") as unknown as new (
  address: string,
  credentials: grpc.ChannelCredentials,
  options?: grpc.ChannelOptions,
) => LedgerClient;

export function ledgerClient(
  address: string,
  credentials = grpc.credentials.createInsecure(),
  options: grpc.ChannelOptions = {},
): LedgerClient {
  return new Client(address, credentials, { "grpc.use_local_subchannel_pool": 1, ...options });
}

export interface GrpcService {
  readonly service: RunningService;
  readonly arrived: { method: string; metadata: grpc.Metadata }[];
  handlers: {
    Get: grpc.handleUnaryCall<Buffer, Buffer>;
    Add: grpc.handleClientStreamingCall<Buffer, Buffer>;
    List: grpc.handleServerStreamingCall<Buffer, Buffer>;
    Follow: grpc.handleBidiStreamingCall<Buffer, Buffer>;
    Secret: grpc.handleUnaryCall<Buffer, Buffer>;
  };
  close(): void;
}

/** A gRPC server that nobody here wrote, on a Unix socket. */
export async function runGrpcService(name: string): Promise<GrpcService> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-grpc-"));
  const path = join(directory, "s.sock");
  const server = new grpc.Server({ "grpc.max_receive_message_length": -1 });
  const running: GrpcService = {
    service: {
      ...{ name, id: SpiffeId.of(shop, `services/${name}`), protocol: "grpc", listenPort: undefined },
      upstream: { kind: "unix", path },
    },
    arrived: [],
    handlers: {
      Get: (call, callback) => callback(null, call.request),
      Secret: (call, callback) => callback(null, call.request),
      Add(call, callback) {
        let size = 0;
        call.on("data", (data: Buffer) => {
          size += data.length;
        });
        call.on("end", () => callback(null, Buffer.from(String(size))));
      },
      List(call) {
        for (let index = 0; index < Number(call.request.toString()); index += 1) call.write(Buffer.from(String(index)));
        call.end();
      },
      Follow(call) {
        call.on("data", (data: Buffer) => call.write(data));
        call.on("end", () => call.end());
      },
    },
    close() {
      server.forceShutdown();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  type Name = keyof GrpcService["handlers"];
  /** Of the handlers as they are when the call comes. */
  const handle = (name: Name) =>
    ((call: { metadata: grpc.Metadata }, ...more: unknown[]) => {
      running.arrived.push({ method: name, metadata: call.metadata });
      Reflect.apply(running.handlers[name], undefined, [call, ...more]);
    }) as grpc.UntypedHandleCall;
  const names = Object.keys(ledger) as Name[];
  server.addService(ledger, Object.fromEntries(names.map((name) => [name, handle(name)])));
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${path}`, grpc.ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
  return running;
}

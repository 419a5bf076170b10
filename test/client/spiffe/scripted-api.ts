import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import {
  type SpiffeWorkloadAPIServer,
  SpiffeWorkloadAPIService,
  type X509SVIDRequest,
  type X509SVIDResponse,
} from "../../../src/workload-api/generated/workload.js";

export type X509Stream = ServerWritableStream<X509SVIDRequest, X509SVIDResponse>;

/** A Workload API that says what a test wants it to say: servers that err, as no real one of ours does. */
export interface ScriptedApi {
  readonly address: string;
  /** Metadata of every call, in order. */
  readonly calls: readonly Metadata[];
  /** The next stream that a client opens. */
  nextStream(): Promise<X509Stream>;
  close(): void;
}

export async function runScriptedApi(more: Partial<SpiffeWorkloadAPIServer> = {}): Promise<ScriptedApi> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-sc-"));
  const calls: Metadata[] = [];
  const waiting: X509Stream[] = [];
  const takers: ((stream: X509Stream) => void)[] = [];
  const unimplemented = () => Object.assign(new Error("not scripted"), { code: status.UNIMPLEMENTED });
  const service: SpiffeWorkloadAPIServer = {
    fetchX509Svid(stream) {
      calls.push(stream.metadata);
      const taker = takers.shift();
      if (taker === undefined) waiting.push(stream);
      else taker(stream);
    },
    fetchX509Bundles: (call) => call.emit("error", unimplemented()),
    fetchJwtBundles: (call) => call.emit("error", unimplemented()),
    fetchWitsvid: (call) => call.emit("error", unimplemented()),
    fetchWitBundles: (call) => call.emit("error", unimplemented()),
    fetchJwtsvid: (_call, answer) => answer(unimplemented()),
    validateJwtsvid: (_call, answer) => answer(unimplemented()),
    ...more,
  };
  const server = new Server();
  server.addService(SpiffeWorkloadAPIService, service);
  const address = `unix://${join(directory, "api.sock")}`;
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix:${join(directory, "api.sock")}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    ),
  );
  return {
    address,
    calls,
    nextStream() {
      const stream = waiting.shift();
      return stream === undefined ? new Promise((resolve) => takers.push(resolve)) : Promise.resolve(stream);
    },
    close() {
      server.forceShutdown();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Ends a stream with a status. */
export function failWith(stream: X509Stream, code: status, details = "scripted"): void {
  const error: Partial<ServiceError> = Object.assign(new Error(details), { code, details });
  stream.emit("error", error);
}

/** Waits for one thing that a listener is called with. */
export function nextCall<T>(subscribe: (listener: (value: T) => void) => () => void): Promise<T> {
  return new Promise((resolve) => {
    const forget = subscribe((value) => {
      forget();
      resolve(value);
    });
  });
}

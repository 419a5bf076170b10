import { type handleBidiStreamingCall, type ServerDuplexStream, status } from "@grpc/grpc-js";
import type { Connections } from "./connections.js";
import { type DescribedFile, describedFiles } from "./generated/descriptors.js";
import type { ServerReflectionRequest, ServerReflectionResponse } from "./generated/grpc/reflection/v1/reflection.js";
import { StatusError } from "./grpc-status.js";

/** What a request is answered with, besides its echo. */
type Answer = Pick<
  ServerReflectionResponse,
  "fileDescriptorResponse" | "allExtensionNumbersResponse" | "listServicesResponse" | "errorResponse"
>;

const fileByName = new Map(describedFiles.map((file) => [file.name, file]));
const fileBySymbol = new Map(describedFiles.flatMap((file) => file.symbols.map((symbol) => [symbol, file])));
const services = describedFiles.flatMap((file) => file.services).sort();

/**
 * gRPC Server Reflection (EP-7), on the same socket and without the security header (EP-6): it says what the protos say, and nothing of any identity.
 * One handler serves `grpc.reflection.v1` and `v1alpha`, whose messages are the same; tools ask for either.
 */
export function serverReflectionInfo(
  connections: Pick<Connections, "find">,
): handleBidiStreamingCall<ServerReflectionRequest, ServerReflectionResponse> {
  return (call) => {
    connections.find(call.getPeer())?.spoke();
    /** Files that this stream has brought already. */
    const sent = new Set<DescribedFile>();
    call.on("data", (request) => {
      const answer = answerTo(request, sent);
      if (answer === undefined) {
        call.emit("error", new StatusError(status.INVALID_ARGUMENT, "the request asks for nothing").toServiceError());
        return;
      }
      respond(call, { validHost: request.host, originalRequest: request, ...answer });
    });
    call.on("end", () => call.end());
  };
}

/** A client that does not read its answers is not read from. */
function respond(
  call: ServerDuplexStream<ServerReflectionRequest, ServerReflectionResponse>,
  response: ServerReflectionResponse,
): void {
  if (call.write(response)) return;
  call.pause();
  call.once("drain", () => call.resume());
}

/** Undefined for a request without a question. */
function answerTo(request: ServerReflectionRequest, sent: Set<DescribedFile>): Answer | undefined {
  const { fileByFilename, fileContainingSymbol, fileContainingExtension, allExtensionNumbersOfType } = request;
  if (request.listServices !== undefined) {
    return { listServicesResponse: { service: services.map((name) => ({ name })) } };
  }
  if (fileByFilename !== undefined) return describe(fileByName.get(fileByFilename), `file ${fileByFilename}`, sent);
  if (fileContainingSymbol !== undefined) {
    return describe(fileBySymbol.get(fileContainingSymbol), `symbol ${fileContainingSymbol}`, sent);
  }
  // The protos are proto3 and extend nothing.
  if (fileContainingExtension !== undefined) {
    const { containingType, extensionNumber } = fileContainingExtension;
    return describe(undefined, `extension ${extensionNumber} of ${containingType}`, sent);
  }
  if (allExtensionNumbersOfType !== undefined) {
    if (!fileBySymbol.has(allExtensionNumbersOfType)) return unknown(`type ${allExtensionNumbersOfType}`);
    return { allExtensionNumbersResponse: { baseTypeName: allExtensionNumbersOfType, extensionNumber: [] } };
  }
  return undefined;
}

function describe(file: DescribedFile | undefined, what: string, sent: Set<DescribedFile>): Answer {
  if (file === undefined) return unknown(what);
  const files = [file, ...importsOf(file).filter((other) => !sent.has(other))];
  for (const one of files) sent.add(one);
  return {
    fileDescriptorResponse: { fileDescriptorProto: files.map(({ descriptor }) => Buffer.from(descriptor, "base64")) },
  };
}

/** Every file that `file` needs, directly or not, without itself. */
function importsOf(file: DescribedFile): readonly DescribedFile[] {
  const found = new Set([file]);
  for (const { dependencies } of found) {
    for (const name of dependencies) {
      const imported = fileByName.get(name);
      if (imported !== undefined) found.add(imported);
    }
  }
  found.delete(file);
  return [...found];
}

function unknown(what: string): Answer {
  return { errorResponse: { errorCode: status.NOT_FOUND, errorMessage: `no ${what} is known here` } };
}

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { status } from "@grpc/grpc-js";
import {
  ServerReflectionService as Reflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from "../workload-api/generated/grpc/reflection/v1/reflection.js";
import { ServerReflectionService as ReflectionV1Alpha } from "../workload-api/generated/grpc/reflection/v1alpha/reflection.js";
import { skip } from "./check.js";
import { type Answer, described, type Probe } from "./probe.js";

/** The standard's service, which has no protobuf package. */
export const SERVICE = "SpiffeWorkloadAPI";

/** Asks v1, and v1alpha of a server that does not know it; the messages are the same. */
async function reflect(
  probe: Probe,
  question: Omit<ServerReflectionRequest, "host">,
): Promise<Answer<ServerReflectionResponse>> {
  const request = { host: "", ...question };
  const answer = await probe.ask(Reflection.serverReflectionInfo, request);
  if (answer.ok || answer.status !== status.UNIMPLEMENTED) return answer;
  return probe.ask(ReflectionV1Alpha.serverReflectionInfo, request);
}

/** The services that reflection names; a text that says why it names none. */
export async function reflectedServices(probe: Probe): Promise<readonly string[] | string> {
  const answer = await reflect(probe, { listServices: "" });
  if (!answer.ok) return `reflection answers ${described(answer)}`;
  return (answer.message.listServicesResponse?.service ?? []).map(({ name }) => name);
}

/** The methods that reflection shows of the standard's service. Skips where it shows nothing of it. */
export async function methodsOfService(probe: Probe): Promise<readonly string[]> {
  const answer = await reflect(probe, { fileContainingSymbol: SERVICE });
  const files = answer.ok ? (answer.message.fileDescriptorResponse?.fileDescriptorProto ?? []) : [];
  const methods = files.flatMap(methodsIn);
  return methods.length > 0 ? methods : skip(`reflection does not describe ${SERVICE}: EP-7`);
}

/** google/protobuf/descriptor.proto: FileDescriptorProto.service = 6; ServiceDescriptorProto.name = 1, method = 2; MethodDescriptorProto.name = 1. */
function methodsIn(file: Uint8Array): readonly string[] {
  const services = fieldsOf(file).filter(({ field }) => field === 6);
  return services.flatMap(({ bytes }) => {
    const fields = fieldsOf(bytes);
    if (!fields.some(({ field, bytes: name }) => field === 1 && textOf(name) === SERVICE)) return [];
    const methods = fields.filter(({ field }) => field === 2);
    return methods.flatMap((method) =>
      fieldsOf(method.bytes)
        .filter(({ field }) => field === 1)
        .map(({ bytes: name }) => textOf(name)),
    );
  });
}

const LENGTH_DELIMITED = 2;

function fieldsOf(message: Uint8Array): readonly { readonly field: number; readonly bytes: Uint8Array }[] {
  const reader = new BinaryReader(message);
  const fields: { field: number; bytes: Uint8Array }[] = [];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType === LENGTH_DELIMITED) fields.push({ field, bytes: reader.bytes() });
    else reader.skip(wireType);
  }
  return fields;
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("utf8");
}

import "reflect-metadata";
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign, webcrypto } from "node:crypto";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import {
  type Metadata,
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServiceDefinition,
  type status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { Jwk } from "../../src/spiffe/jwt-bundle.js";
import { encodePem } from "../../src/spiffe/pem.js";
import type { ServerReflectionServer } from "../../src/workload-api/generated/grpc/reflection/v1/reflection.js";
import type { WITSVIDResponse } from "../../src/workload-api/generated/workload.js";
import {
  basicConstraints,
  type CertificateOptions,
  HOUR,
  KeyUsageFlags,
  keyUsage,
  makeAuthority,
  NOW,
  uris,
} from "../spiffe/test-certificates.js";
import type { Behaviour } from "./behaviour.js";

export class Refused extends Error {
  readonly code: status;
  constructor(code: status, message: string) {
    super(message);
    this.code = code;
  }
}

/** The certificates of the tests hang on a fixed time; here they hold now. */
export function valid(): { notBefore: number; notAfter: number } {
  const shift = Date.now() - NOW.getTime();
  return { notBefore: shift - HOUR, notAfter: shift + HOUR };
}

/** Name and extensions of an authority of `trustDomain`. */
export function authorityOf(name: string, trustDomain: string): Pick<CertificateOptions, "name" | "extensions"> {
  const usage = KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign;
  return { name, extensions: [basicConstraints(true), keyUsage(usage), uris(trustDomain)] } as const;
}

/** Certificate and key of a server that wants TLS, as PEM. */
export async function tlsFiles(): Promise<{ cert_chain: Buffer; private_key: Buffer }> {
  const { der, keys } = await makeAuthority(valid());
  const key = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.pair.privateKey));
  return {
    cert_chain: Buffer.from(encodePem("CERTIFICATE", der)),
    private_key: Buffer.from(encodePem("PRIVATE KEY", key)),
  };
}

/** Seventeen octets, the first of them small: positive, and not to be guessed. */
export const randomSerial = (): string => `01${randomBytes(16).toString("hex")}`;

export const inAnHour = (): number => Math.floor(Date.now() / 1000) + 3600;

export function headerRule(b: Behaviour): ServerInterceptor {
  return (method, call) =>
    new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata: Metadata, deliver) => {
            if (!b.needsHeader(method.path) || b.acceptsHeader(metadata.get("workload.spiffe.io"))) deliver(metadata);
            else call.sendStatus({ code: b.refusals.header, details: "header", metadata: null });
          },
        }),
    });
}

export function publicJwk(key: KeyObject, kid: string): Jwk {
  return { ...createPublicKey(key).export({ format: "jwk" }), kty: "EC", kid, use: "jwt-svid" };
}

export function token(header: object, claims: object, key: KeyObject): string {
  const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${signed}.${sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
}

export function witSvid(id: string, key: KeyObject): WITSVIDResponse["svids"][number] {
  const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = { ...own.publicKey.export({ format: "jwk" }), alg: "ES256" };
  const claims = { sub: id, exp: inAnHour(), cnf: { jwk } };
  return {
    spiffeId: id,
    witSvid: token({ alg: "ES256", kid: "w", typ: "wit+jwt" }, claims, key),
    witSvidKey: JSON.stringify(own.privateKey.export({ format: "jwk" })),
    hint: "",
  };
}

/** Lists the service and describes it by a hand-written FileDescriptorProto. */
export function reflection(methods: readonly string[]): ServerReflectionServer {
  return {
    serverReflectionInfo: (call) => {
      call.on("data", (request) => {
        const listed = { service: [{ name: "SpiffeWorkloadAPI" }] };
        call.write({
          validHost: "",
          originalRequest: request,
          fileDescriptorResponse: request.fileContainingSymbol && { fileDescriptorProto: [fileOf(methods)] },
          listServicesResponse: request.listServices === undefined ? undefined : listed,
        } as never);
      });
      call.on("end", () => call.end());
    },
  };
}

function fileOf(methods: readonly string[]): Buffer {
  const service = new BinaryWriter().uint32(0x0a).string("SpiffeWorkloadAPI");
  for (const method of methods) service.uint32(0x12).bytes(new BinaryWriter().uint32(0x0a).string(method).finish());
  return Buffer.from(new BinaryWriter().uint32(0x32).bytes(service.finish()).finish());
}

export function unknownMethod(code: status): [ServiceDefinition, UntypedServiceImplementation] {
  const asIs = (bytes: Buffer) => bytes;
  const definition = {
    path: "/SpiffeWorkloadAPI/FetchNothing",
    ...{ requestStream: false, responseStream: false },
    ...{ requestSerialize: asIs, requestDeserialize: asIs, responseSerialize: asIs, responseDeserialize: asIs },
  };
  return [
    { nothing: definition },
    { nothing: (_call: unknown, callback: (error: Error) => void) => callback(new Refused(code, "nothing")) },
  ];
}

import { status } from "@grpc/grpc-js";

/** One way to call the Workload API, and the only answer it may have. */
export interface SoakCall {
  readonly name: string;
  readonly path: string;
  /** Values of the security header; a list is sent as repeated headers. */
  readonly header: string | readonly string[] | undefined;
  readonly body: Buffer;
  /** A gRPC status; or `opened`: the first message comes, and the caller cancels. */
  readonly answer: status | "opened";
  /** The caller has more to say: it does not end its half of the stream. */
  readonly goesOn?: boolean;
}

const EMPTY = Buffer.alloc(0);
/** `audience: "a"`, field 1. */
const AUDIENCE = Buffer.from("0a0161", "hex");
/** The resource names of both kinds of discovery request are field 3: `default`. */
const DEFAULT_SECRET = Buffer.concat([Buffer.from("1a07", "hex"), Buffer.from("default")]);
/** `list_services: ""`, field 7. */
const LIST_SERVICES = Buffer.from("3a00", "hex");
/** Field 1, length 5, and one byte of it. */
const CUT_OFF = Buffer.from("0a0561", "hex");
const WIRE_TYPE_7 = Buffer.from("0f00", "hex");
const ENDLESS_VARINT = Buffer.alloc(16, 0xff);

/** RFC: gRPC over HTTP/2, Length-Prefixed-Message. */
function message(payload: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(payload.length, 1);
  return Buffer.concat([prefix, payload]);
}

function call(name: string, method: string, answer: SoakCall["answer"], payload = EMPTY): SoakCall {
  return { name, path: `/SpiffeWorkloadAPI/${method}`, header: "true", body: message(payload), answer };
}

function withHeader(name: string, header: SoakCall["header"]): readonly SoakCall[] {
  return ["FetchX509SVID", "FetchJWTBundles", "FetchJWTSVID"].map((method) => ({
    ...call(`${name}: ${method}`, method, status.INVALID_ARGUMENT, method === "FetchJWTSVID" ? AUDIENCE : EMPTY),
    header,
  }));
}

/** Streams that are opened and cancelled. */
export const streams: readonly SoakCall[] = [
  call("FetchX509SVID, cancelled", "FetchX509SVID", "opened"),
  call("FetchX509Bundles, cancelled", "FetchX509Bundles", "opened"),
  call("FetchJWTBundles, cancelled", "FetchJWTBundles", "opened"),
  call("FetchWITSVID, cancelled", "FetchWITSVID", "opened"),
  call("FetchWITBundles, cancelled", "FetchWITBundles", "opened"),
  { ...of("/grpc.health.v1.Health/Watch", EMPTY), goesOn: false },
  of("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", DEFAULT_SECRET),
  of("/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets", DEFAULT_SECRET),
  of("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", LIST_SERVICES),
];

/** A stream in both directions, of another service on the same socket. */
function of(path: string, payload: Buffer): SoakCall {
  const name = `${path.slice(path.lastIndexOf("/") + 1)}, cancelled`;
  return { name, path, header: "true", body: message(payload), answer: "opened", goesOn: true };
}

/** Calls that are answered at once, every bad one with its exact status. */
export const calls: readonly SoakCall[] = [
  call("FetchJWTSVID", "FetchJWTSVID", status.OK, AUDIENCE),
  ...withHeader("no header", undefined),
  ...withHeader("empty header", ""),
  ...withHeader("header True", "True"),
  ...withHeader("header 1", "1"),
  ...withHeader("header twice", ["true", "true"]),
  ...[CUT_OFF, WIRE_TYPE_7, ENDLESS_VARINT].flatMap((payload, index) =>
    ["FetchX509SVID", "FetchJWTBundles", "FetchWITSVID", "FetchJWTSVID", "ValidateJWTSVID"].map((method) =>
      call(`malformed protobuf ${index + 1}: ${method}`, method, status.INTERNAL, payload),
    ),
  ),
  call("no audience", "FetchJWTSVID", status.INVALID_ARGUMENT),
  call("a SPIFFE ID that is none", "FetchJWTSVID", status.INVALID_ARGUMENT, Buffer.from("0a0161120178", "hex")),
  call(
    "a SPIFFE ID of somebody else",
    "FetchJWTSVID",
    status.PERMISSION_DENIED,
    Buffer.concat([AUDIENCE, Buffer.from([0x12, 22]), Buffer.from("spiffe://soak.local/ab")]),
  ),
  call("a token that is none", "ValidateJWTSVID", status.INVALID_ARGUMENT, Buffer.from("0a0161120178", "hex")),
  call("an unknown method", "FetchEverything", status.UNIMPLEMENTED),
  { ...call("an unknown service", "", status.UNIMPLEMENTED), path: "/NobodyAtAll/Fetch" },
  call("a request beyond the limit", "ValidateJWTSVID", status.RESOURCE_EXHAUSTED, Buffer.alloc(300 * 1024)),
];

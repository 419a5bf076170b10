import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

/** A span as opentelemetry-proto (trace/v1/trace.proto) has it on the wire. */
export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly traceState: string;
  readonly name: string;
  /** 2: SERVER, 3: CLIENT. */
  readonly kind: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** 2: ERROR. */
  readonly status: number;
}

/** Takes what an exporter sends over OTLP/HTTP, and reads it by the field numbers of the published protocol. */
export async function runCollector() {
  const spans: ReceivedSpan[] = [];
  const resources: Record<string, unknown>[] = [];
  const types: string[] = [];
  const bodies: Buffer[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      types.push(`${request.method} ${request.url} ${request.headers["content-type"]}`);
      const body = Buffer.concat(chunks);
      bodies.push(body);
      for (const resourceSpans of fields(body).get(1) ?? []) {
        const inside = fields(resourceSpans as Uint8Array);
        resources.push(attributesOf(inside.get(1)?.flatMap((resource) => fields(resource as Uint8Array).get(1) ?? [])));
        for (const scope of inside.get(2) ?? []) {
          for (const span of fields(scope as Uint8Array).get(2) ?? []) spans.push(spanOf(span as Uint8Array));
        }
      }
      response.setHeader("content-type", "application/x-protobuf").end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...{ spans, resources, types },
    /** Everything that was sent, as it came. */
    bodies,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

function spanOf(bytes: Uint8Array): ReceivedSpan {
  const span = fields(bytes);
  const hex = (field: number) => Buffer.from((span.get(field)?.[0] as Uint8Array | undefined) ?? []).toString("hex");
  const text = (field: number) => Buffer.from((span.get(field)?.[0] as Uint8Array | undefined) ?? []).toString();
  const status = span.get(15)?.[0] as Uint8Array | undefined;
  return {
    traceId: hex(1),
    spanId: hex(2),
    traceState: text(3),
    parentSpanId: hex(4),
    name: text(5),
    kind: Number(span.get(6)?.[0]),
    attributes: attributesOf(span.get(9)),
    status: status === undefined ? 0 : Number(fields(status).get(3)?.[0] ?? 0),
  };
}

function attributesOf(pairs: readonly unknown[] = []): Record<string, unknown> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const [key, value] = [1, 2].map((field) => fields(pair as Uint8Array).get(field)?.[0] as Uint8Array);
      const [[kind, [content]] = [0, [undefined]]] = [...fields(value ?? new Uint8Array())];
      return [Buffer.from(key ?? []).toString(), kind === 1 ? Buffer.from(content as Uint8Array).toString() : content];
    }),
  );
}

/** The fields of a message, by number. */
function fields(bytes: Uint8Array): Map<number, unknown[]> {
  const reader = new BinaryReader(bytes);
  const read = new Map<number, unknown[]>();
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    let value: unknown;
    if (type === WireType.LengthDelimited) value = reader.bytes();
    else if (type === WireType.Varint) value = Number(reader.uint64());
    else {
      reader.skip(type);
      continue;
    }
    read.set(number, [...(read.get(number) ?? []), value]);
  }
  return read;
}

"""A gRPC service and a WebSocket, and a client of both that calls them where it is told, all watched by OpenTelemetry's own code."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, GrpcInstrumentorServer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from websockets.sync.client import connect
from websockets.sync.server import serve

propagator = TraceContextTextMapPropagator()
saying = threading.Lock()


def say(what):
    with saying:
        print(json.dumps(what), flush=True)


class Saying(SpanExporter):
    def export(self, spans):
        for span in spans:
            parent = f"{span.parent.span_id:016x}" if span.parent else ""
            own = span.get_span_context()
            say({"name": span.name, "kind": span.kind.name, "trace": f"{own.trace_id:032x}", "span": f"{own.span_id:016x}", "parent": parent})
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Saying()))
trace.set_tracer_provider(provider)
GrpcInstrumentorServer().instrument()
GrpcInstrumentorClient().instrument()


def plain(value):
    return value


def echo(connection):
    context = propagator.extract({name.lower(): value for name, value in connection.request.headers.raw_items()})
    span = trace.get_current_span(context).get_span_context()
    say({"name": "websocket", "kind": "SERVICE", "trace": f"{span.trace_id:032x}", "span": f"{span.span_id:016x}", "parent": ""})
    for message in connection:
        connection.send(message)


ledger = grpc.server(ThreadPoolExecutor(2))
get = grpc.unary_unary_rpc_method_handler(lambda request, _: request, plain, plain)
ledger.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Ledger", {"Get": get}),))
grpc_port = ledger.add_insecure_port("127.0.0.1:0")
ledger.start()
chat = serve(echo, "127.0.0.1", 0)
threading.Thread(target=chat.serve_forever, daemon=True).start()
say({"grpc": grpc_port, "websocket": chat.socket.getsockname()[1]})

there = json.loads(sys.stdin.readline())
with trace.get_tracer("test").start_as_current_span("asks"):
    with grpc.insecure_channel(there["grpc"]) as channel:
        call = channel.unary_unary("/shop.Ledger/Get", request_serializer=plain, response_deserializer=plain)
        answered = call(b"hello", timeout=20) == b"hello"
    headers = {}
    propagator.inject(headers)
    with connect(there["websocket"], additional_headers=headers, open_timeout=20) as socket:
        socket.send("hello")
        echoed = socket.recv() == "hello"
say({"name": "done", "answered": answered, "echoed": echoed})
sys.stdin.read()
chat.shutdown()
ledger.stop(None)

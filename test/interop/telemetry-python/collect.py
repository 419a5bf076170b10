"""Takes OTLP over HTTP with OpenTelemetry's own protocol classes, and reads the headers of a service with its own propagator."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


def say(what):
    print(json.dumps(what), flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        context = TraceContextTextMapPropagator().extract({name.lower(): value for name, value in self.headers.items()})
        span = trace.get_current_span(context).get_span_context()
        say({"service": {"trace": f"{span.trace_id:032x}", "span": f"{span.span_id:016x}", "state": span.trace_state.to_header()}})
        self.answer(b"ok")

    def do_POST(self):
        export = ExportTraceServiceRequest()
        export.ParseFromString(self.body())
        for resource in export.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    say({
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "state": span.trace_state,
                        "kind": span.kind,
                        "name": span.name,
                        "took": span.end_time_unix_nano > span.start_time_unix_nano,
                        "attributes": {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
                    })
        self.answer(b"")

    def body(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
say({"port": server.server_port})
sys.stdout.flush()
server.serve_forever()

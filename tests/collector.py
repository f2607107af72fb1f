"""A collector of traces: OTLP over gRPC, of OpenTelemetry's own contract."""

import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from tests.certificates import Issued

WAIT_S = 60.0


@dataclass(frozen=True)
class Span:
    """A span that has come, its ids in hexadecimal digits."""

    name: str
    trace: str
    id: str
    parent: str
    state: str
    kind: str
    failed: bool
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...]
    resource: Mapping[str, Any]


class Collector(services.TraceServiceServicer):
    """Keeps the spans that it is sent.

    Args:
        port: to listen on; 0: a free one.
        tls: certificate and key; None: no TLS.
    """

    def __init__(self, port: int = 0, tls: Issued | None = None) -> None:
        self.spans: list[Span] = []
        self.headers: list[Mapping[str, Any]] = []
        self._changed = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        add: Any = services.add_TraceServiceServicer_to_server
        add(self, self._server)
        self._scheme = "http" if tls is None else "https"
        if tls is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            pair = tls.key.read_bytes(), tls.cert.read_bytes()
            credentials = grpc.ssl_server_credentials([pair])
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self._server.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._changed:
            self.headers.append(dict(context.invocation_metadata()))
            for group in request.resource_spans:
                resource = values(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans += [_span(each, resource) for each in scope.spans]
            self._changed.notify_all()
        return pb.ExportTraceServiceResponse()

    def wait_for(self, enough: Callable[[list[Span]], object]) -> list[Span]:
        """Wait until the spans that have come are enough; returns them."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.spans), WAIT_S), self.spans
            return list(self.spans)

    def wait_for_names(self, **counts: int) -> list[Span]:
        """Wait until so many spans of each name have come."""

        def enough(spans: list[Span]) -> bool:
            names = [span.name for span in spans]
            return all(names.count(name) >= count for name, count in counts.items())

        return self.wait_for(enough)

    def close(self) -> None:
        self._server.stop(None).wait()


def values(attributes: Any) -> Mapping[str, Any]:
    """Attributes as a dictionary."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }


def _span(message: Any, resource: Mapping[str, Any]) -> Span:
    return Span(
        message.name,
        message.trace_id.hex(),
        message.span_id.hex(),
        message.parent_span_id.hex(),
        message.trace_state,
        SpanMessage.SpanKind.Name(message.kind).removeprefix("SPAN_KIND_"),
        message.status.code == 2,
        message.start_time_unix_nano,
        message.end_time_unix_nano,
        values(message.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in message.links),
        resource,
    )

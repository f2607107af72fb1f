"""Traces: sends the spans of calls and batches to a collector, by OTLP over gRPC.

A thread that serves hands over what has ended, and no more. The SDK's BatchSpanProcessor keeps it,
bounded, and on its thread the spans are made and sent. If the collector is away, calls notice
nothing, and what no longer fits is lost.

Imported only where traces are on. The variables of the SDK (OTEL_EXPORTER_OTLP_HEADERS,
OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_SCHEDULE_DELAY and others) have their effect.
"""

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import cast

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_EXPORTER_OTLP_CERTIFICATE,
    OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from convserve_server.telemetry.call_notes import BatchNotes, CallTrace, EndedCall
from convserve_server.telemetry.spans import SpanMaker
from convserve_server.telemetry.trace_parent import Header, Sampler

log = logging.getLogger(__name__)

_SDK = logging.getLogger("opentelemetry")
#: Its loggers that say what becomes of spans.
_SENDERS = ("opentelemetry.sdk", "opentelemetry.exporter")

#: Variables that name the authorities to trust.
_AUTHORITIES = frozenset({OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE})

#: Calls and batches whose spans are sent in one message: of a call there are up to five, and
#: collectors accept 4 MiB by default.
_MOST_SENT = 256


class _Ended:
    """A call or a batch that has ended, in place of its spans.

    The SDK's processor looks at nothing of what it keeps but whether the context is sampled.
    """

    __slots__ = ("what",)

    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, what: EndedCall | BatchNotes) -> None:
        self.what = what


class Tracing:
    """Traces the calls of this process.

    Args:
        url: of the collector, http:// or https://.
        share: of the calls without a traceparent that are traced, 0 to 1.
        worker: number of this process among those of the server.

    Raises:
        ValueError: if a variable of the SDK is not valid.
    """

    def __init__(self, url: str, share: float, worker: int = 1) -> None:
        if url.startswith("https:"):
            _trust_system()
        self._problems = _Problems(url)
        _follow_sdk(self._problems)
        # What the variables of the SDK say comes before.
        resource = Resource(
            {
                "service.name": "convserve",
                "service.version": version("convserve"),
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
                "process.pid": os.getpid(),
                "convserve.worker": worker,
            }
        ).merge(_from_variables())
        self._exporter = OTLPSpanExporter(url)
        sender = _Sender(self._exporter, SpanMaker(resource), self._problems)
        most = None if OTEL_BSP_MAX_EXPORT_BATCH_SIZE in os.environ else _MOST_SENT
        self._processor = BatchSpanProcessor(sender, max_export_batch_size=most)
        self._sampler = Sampler(share, self._batch_ended)

    def trace(self, header: Header) -> CallTrace | None:
        """See Sampler.trace."""
        return self._sampler.trace(header)

    def call_ended(self, call: EndedCall) -> None:
        """Has the spans of a call sent, later."""
        self._processor.on_end(cast(ReadableSpan, _Ended(call)))

    def flush(self, timeout_s: float) -> None:
        """Sends what is left, waiting no longer than this."""
        # The SDK's own limit is not kept.
        thread = threading.Thread(target=self._processor.force_flush, name="traces", daemon=True)
        thread.start()
        thread.join(max(0.0, timeout_s))
        if thread.is_alive():
            log.warning("traces: the last ones could not be sent within %.1f s", timeout_s)

    def close(self) -> None:
        """Ends; what has not been sent is lost."""
        _SDK.removeHandler(self._problems)
        # First, so that what is being tried again is given up.
        self._exporter.shutdown()
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _batch_ended(self, batch: BatchNotes) -> None:
        self._processor.on_end(cast(ReadableSpan, _Ended(batch)))


class _Sender(SpanExporter):
    """Makes spans of what has ended, and sends them.

    Args:
        exporter: that sends.
        maker: of spans.
        problems: that there were.
    """

    def __init__(self, exporter: SpanExporter, maker: SpanMaker, problems: "_Problems") -> None:
        self._exporter = exporter
        self._maker = maker
        self._problems = problems

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter.export."""
        # Anew each time: the clock of the machine may be set.
        epoch_s = time.time() - time.monotonic()
        made: list[ReadableSpan] = []
        for one in cast(Sequence[_Ended], spans):
            what = one.what
            if isinstance(what, BatchNotes):
                made += self._maker.of_batch(what, epoch_s)
            else:
                made += self._maker.of_call(what, epoch_s)
        result = self._exporter.export(made)
        if result is SpanExportResult.SUCCESS:
            self._problems.over()
        return result


class _Problems(logging.Handler):
    """Logs what the SDK logs, each message once until traces can be sent again.

    Args:
        url: of the collector.
    """

    def __init__(self, url: str) -> None:
        super().__init__(logging.WARNING)
        self._url = url
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a record, unless it is another one of those that are known."""
        kind = str(record.msg)
        # It is tried again; if that is in vain, another record says so.
        if kind in self._seen or kind.startswith("Transient error"):
            return
        # Others warn of what callers send.
        if not record.name.startswith(_SENDERS):
            return
        self._seen.add(kind)
        log.warning(
            "traces for %s are being lost, calls are served as before: %s",
            self._url, record.getMessage(), exc_info=record.exc_info,
        )  # fmt: skip

    def over(self) -> None:
        """Notes that traces are sent."""
        if self._seen:
            self._seen.clear()
            log.info("traces are sent again to %s", self._url)


def _follow_sdk(problems: _Problems) -> None:
    """Has our log say what goes wrong in the SDK, once instead of with each attempt."""
    _SDK.propagate = False
    _SDK.addHandler(problems)


def _trust_system() -> None:
    """Has TLS trust the authorities of the system, where no variable names others.

    gRPC brings its own, and the SDK accepts others by a variable alone.
    """
    if _AUTHORITIES.isdisjoint(os.environ):
        paths = ssl.get_default_verify_paths()
        for file in (paths.cafile, f"{paths.capath}/ca-certificates.crt"):
            if file is not None and os.path.isfile(file):
                os.environ[OTEL_EXPORTER_OTLP_CERTIFICATE] = file
                return


def _from_variables() -> Resource:
    """Returns what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say."""
    given = Resource.create()
    theirs = dict(given.attributes)
    # Their default, where the variables have none.
    if str(theirs.get("service.name", "")).startswith("unknown_service"):
        del theirs["service.name"]
    return Resource(theirs, given.schema_url)

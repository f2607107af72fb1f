"""The parts of a worker wired together: transports, protocols, core."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from convserve_server.core.classifier import Classifier
from convserve_server.core.decode_pool import DecodePool
from convserve_server.core.jobs import Priority
from convserve_server.core.models import ModelVersion
from convserve_server.core.preparer import Load, Preparer
from convserve_server.core.repository import ModelLimits, Repository
from convserve_server.core.tables import Bundle
from convserve_server.engines import arena
from convserve_server.host import heap
from convserve_server.process.control import Control
from convserve_server.process.local_control import LocalControl
from convserve_server.process.policies import policy_of
from convserve_server.process.scan import trust_of
from convserve_server.process.tls_settings import tls_files
from convserve_server.protocols.base import Interceptor, Service
from convserve_server.protocols.call_follower import CallFollower
from convserve_server.protocols.convserve_v1.service import SERVICE, ConvserveV1
from convserve_server.protocols.health import Health
from convserve_server.protocols.key_check import KeyCheck
from convserve_server.protocols.open_inference.service import SERVICE as OPEN_INFERENCE
from convserve_server.protocols.open_inference.service import OpenInference
from convserve_server.protocols.reflection import make_reflection
from convserve_server.protocols.router import Router
from convserve_server.protocols.streams import StreamBudget
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings
from convserve_server.telemetry.access_log import AccessLog
from convserve_server.telemetry.observer import NO_OBSERVER, Observer, Observers
from convserve_server.telemetry.shared_statistics import SharedStatistics
from convserve_server.transports.base import Transport, TransportOptions

if TYPE_CHECKING:
    from convserve_server.telemetry.tracing import Tracing
    from convserve_server.transports.http import HttpTransport

log = logging.getLogger(__name__)

#: No call for so long when asked to stop: none is on its way, s.
_QUIET_S = 0.1

#: Of the grace period, kept to send the last answers, s.
_FLUSH_S = 1.0

#: At the end, for a collector that does not answer, s; not beyond the grace period.
_TRACES_S = 5.0


class Worker:
    """Wires the parts of a worker together.

    Args:
        settings: with sizes chosen; see host/resources.py.
        transports: where calls come from; several serve at once.
        load: makes a model of its name and file.
        control: decides what is served; None: this process, by its models folder.
        services: beside ours, health and reflection; each is given the core.
        interceptors: wrap the handlers of all methods; the first is the outermost.
        observer: of the core and the router, beside the statistics.
        statistics: where this worker counts; None: for itself.
        traces: where calls that are traced go; None: none is.

    Attributes:
        follower: of all calls.
        traces: the same.
    """

    def __init__(
        self,
        settings: Settings,
        transports: Sequence[Transport],
        load: Load,
        control: Control | None = None,
        services: Sequence[Callable[[Classifier], Service]] = (),
        interceptors: Sequence[Interceptor] = (),
        observer: Observer = NO_OBSERVER,
        statistics: SharedStatistics | None = None,
        traces: "Tracing | None" = None,
    ) -> None:
        self._settings = settings
        self.traces = traces
        self._access_log = AccessLog(settings.log.access_log, settings.log.access_log_share)
        self.follower = CallFollower(self._access_log, traces)
        self.statistics = SharedStatistics() if statistics is None else statistics
        # One alone costs less than several.
        observer = (
            self.statistics if observer is NO_OBSERVER else Observers([self.statistics, observer])
        )
        self._transports = transports
        self._served: frozenset[str] = frozenset()
        if control is None:
            control = LocalControl(
                settings.models.path,
                partial(policy_of, settings),
                settings.models.scan_s,
                settings.models.load_timeout_s,
                trust_of(settings),
            )
        self.control = control
        self.repository = Repository(
            self._limits,
            control.switch,
            self._report,
            self._on_retired,
            observer,
            control.on_wanted,
        )
        self._preparer = Preparer(
            load,
            self.repository,
            control.on_prepared,
            control.on_failed,
            settings.models.max_model_bytes if settings.security.require_signature else 0,
        )
        self._decoding = DecodePool(
            settings.engine.decode_threads,
            settings.batching.max_queue,
            settings.batching.max_queue_bytes,
            batch_share=settings.batching.batch_share,
            observer=observer,
        )
        classifier = Classifier(self.repository, self._decoding, settings.limits.max_images)
        budget = StreamBudget(settings.limits.max_stream_bytes)
        self._health = Health(("", SERVICE, OPEN_INFERENCE))
        served: list[Service] = [
            ConvserveV1(classifier, budget),
            OpenInference(
                classifier,
                budget,
                self.statistics,
                control.administration,
                may_load=settings.listen.repository_calls == "on",
                max_answer_bytes=settings.limits.max_answer_bytes,
            ),
            self._health,
            *(make(classifier) for make in services),
        ]
        self._router = Router(
            [*served, *self._reflection(served)],
            interceptors,
            settings.limits.max_message_bytes,
            observer,
            self.follower,
        )
        self.statistics.know([*self._router.unary_methods, *self._router.stream_methods])
        self._started = False
        #: Of the transports, once they listen.
        self.ports: list[int] = []

    def _reflection(self, services: Sequence[Service]) -> Sequence[Service]:
        if self._settings.security.reflection == "off":
            return ()
        return make_reflection([service.name for service in services])

    def _on_retired(self, bundle: Bundle) -> None:
        """Gives back the memory of a version that is unloaded, and reports it."""
        arena.shrink()
        heap.trim()
        self.control.on_retired(bundle)

    def _limits(self, name: str) -> ModelLimits:
        settings, model = self._settings, self._settings.for_model(name)
        return ModelLimits(
            max_batch=model.max_batch,
            max_queue=model.max_queue,
            max_queue_bytes=settings.batching.max_queue_bytes,
            max_delay_s=model.max_delay_ms / 1000,
            max_pixels=settings.limits.max_pixels,
            max_decoder_bytes=settings.limits.max_decoder_bytes,
            max_wait_s=model.max_wait_ms / 1000,
            batch_share=settings.batching.batch_share,
            priority=Priority[model.priority.upper()],
            # Nobody would read it without the page.
            drift_sample=settings.telemetry.drift_sample if settings.telemetry.metrics_port else 0,
        )

    def start(self, stop: threading.Event | None = None) -> bool:
        """Loads what is to be served, then listens.

        Args:
            stop: set when the worker should stop before it listens.

        Returns: whether it listens.

        Raises:
            OSError: if the address cannot be bound.
        """
        self.control.attach(self.repository, self._preparer)
        if not self.control.wait_to_listen(stop or threading.Event()):
            return False
        self.ports = [transport.start(self._router) for transport in self._transports]
        self._started = True
        self._report(frozenset(model.name for model in self.repository.models()))
        self.control.watch()
        return True

    def leave(self) -> None:
        """Says by health that the server is about to stop, and goes on serving."""
        self._health.leave()

    def stop(self) -> int:
        """Drains: refuses new calls, answers those in flight within the grace period.

        The connections stay open: grpcio's own shutdown, which sends GOAWAY first, answers calls
        that come in meanwhile with CANCELLED. When the process ends they see a closed connection,
        which is UNAVAILABLE. close() is for those who go on living.

        Returns: calls that were aborted.
        """
        process = self._settings.process
        end = time.monotonic() + process.grace_s
        self._router.drain()
        # Calls on their way here, from callers who could not know, are still served.
        lame_duck_s = min(process.lame_duck_s, process.grace_s)
        self._router.wait_quiet(_QUIET_S, lame_duck_s)
        self._router.refuse()
        left = self._router.wait_idle(max(0.0, end - _FLUSH_S - time.monotonic()))
        self._router.abandon()
        for transport in self._transports:
            transport.flush(max(_FLUSH_S, end - time.monotonic()))
        self._access_log.close()
        if self.traces is not None:
            self.traces.flush(min(_TRACES_S, max(_FLUSH_S, end - time.monotonic())))
        return left

    def answered(self) -> int:
        """Returns how many calls were answered so far, with a result or an error."""
        return self._router.answered()

    def note_now(self) -> None:
        """Writes to the statistics how it is now: calls in flight, and what waits."""
        self.statistics.set_now(
            self._router.in_flight, [self._waiting(model) for model in self.repository.models()]
        )

    def _waiting(self, model: ModelVersion) -> tuple[str, int, float]:
        """Returns the images that wait for a version, and the seconds that its engine needs."""
        coming = 0 if model.decode is None else self._decoding.coming(model.decode)
        images = model.batcher.waiting + coming
        return model.batcher.model, images, model.batcher.work_s(images)

    def close(self) -> None:
        """Closes all connections and unloads all models."""
        for transport in self._transports:
            transport.close()
        if self.traces is not None:
            self.traces.close()
        self._decoding.close()
        self.control.close(timeout_s=_FLUSH_S)
        self.repository.close(timeout_s=_FLUSH_S)

    def _report(self, names: frozenset[str]) -> None:
        """Reports to health which models are served; the repository calls it at every change."""
        if not self._started:
            return
        for service in ("", SERVICE, OPEN_INFERENCE):
            self._health.set(service, bool(names))
        for name in names:
            self._health.set(name, True)
        for name in self._served - names:
            self._health.set(name, None)
        self._served = names


def make_transport(settings: Settings, port: int, guard_field: str = "") -> Transport:
    """Returns the transport that the settings ask for.

    Args:
        settings: with sizes chosen.
        port: to listen on.
        guard_field: see WorkerSpec; with one it listens for guards, on another port.
    """
    options = _options(settings, port)
    if guard_field:
        options = replace(
            options, host="127.0.0.1", port=0, reuse_port=False, guard_field=guard_field
        )
    # Imported when asked for: the other one may not be installed, and costs memory.
    if settings.listen.front == "native":
        from convserve_server.transports.native import NativeTransport

        return NativeTransport(options)
    from convserve_server.transports.grpcio import GrpcioTransport

    return GrpcioTransport(options)


def make_http_transport(
    settings: Settings, port: int, key_check: KeyCheck | None = None
) -> "HttpTransport":
    """Returns the transport of HTTP.

    Args:
        settings: with sizes chosen.
        port: to listen on.
        key_check: checks the keys of callers; None: there are none.

    Raises:
        OSError: if the files of the page cannot be read.
    """
    # Imported when asked for, as above.
    from convserve_server.protocols.rest.messages import RestOptions
    from convserve_server.protocols.rest.pages import read_pages, web_folder
    from convserve_server.transports.http import HttpTransport

    rest = RestOptions(
        max_message_bytes=settings.limits.max_message_bytes,
        max_images=settings.limits.max_images,
        origins=frozenset(filter(None, settings.listen.http_origins.split(","))),
        hosts=_hosts(settings),
        pages=read_pages(web_folder()),
        key_check=key_check,
    )
    return HttpTransport(
        _options(settings, port),
        rest,
        settings.listen.http_max_connections,
        settings.limits.max_stream_bytes,
    )


def _hosts(settings: Settings) -> frozenset[str]:
    """Returns the names by which browsers may call; see protocols/rest/hosts.py."""
    listen, security = settings.listen, settings.security
    if security.tls_cert or security.keys:
        return frozenset({"*"})
    machine = socket.gethostname().lower()
    given = filter(None, listen.http_hosts.split(","))
    return frozenset({machine, machine.partition(".")[0], listen.host.lower(), *given})


def make_traces(settings: Settings, worker: int) -> "Tracing | None":
    """Returns what sends the traces that the settings ask for; None if they ask for none.

    Args:
        settings: with sizes chosen.
        worker: number of this process.

    Raises:
        SettingError: if a variable of OpenTelemetry's SDK is not valid.
    """
    telemetry = settings.telemetry
    if not telemetry.traces:
        return None
    # Imported when asked for: it may not be installed, and costs memory.
    from convserve_server.telemetry.tracing import Tracing

    try:
        return Tracing(telemetry.traces, telemetry.trace_share, worker)
    except (ValueError, RuntimeError) as error:
        raise SettingError(
            f"traces: expected valid variables OTEL_*, got others: {error}"
        ) from error


def _options(settings: Settings, port: int) -> TransportOptions:
    return TransportOptions(
        host=settings.listen.host,
        port=port,
        max_message_bytes=settings.limits.max_message_bytes,
        keepalive_s=settings.listen.keepalive_s,
        max_connection_age_s=settings.listen.max_connection_age_s,
        reuse_port=True,
        tls=tls_files(settings),
        max_streams=settings.limits.max_streams,
    )

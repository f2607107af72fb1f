"""One process that serves: transports, protocols, core. Started and watched by the supervisor.

    python -m convserve_server.worker SOCKET

SOCKET is the number of a stream socket to the supervisor, whose first message is the WorkerSpec;
see process/messages.py. Its end, or SIGTERM, says that the worker should stop.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from convserve_server.core.classifier import Classifier
from convserve_server.core.decode_pool import DecodePool
from convserve_server.core.folder_loader import FolderLoader, Load
from convserve_server.core.repository import ModelLimits, Repository
from convserve_server.engines.base import EngineError, LoadedModel
from convserve_server.engines.bundles import load_bundle
from convserve_server.engines.cpu import ThreadAllowance
from convserve_server.engines.loader import (
    EngineOptions,
    check_installation,
    choose_provider,
    load_engine,
)
from convserve_server.host.descriptors import limit_reached
from convserve_server.host.engine_activity import EngineActivity
from convserve_server.host.heap import trim_from_now_on
from convserve_server.logs import configure_logging
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import EXIT_CONFIG, CannotStart, Ready, one_line
from convserve_server.process.single_process import SingleProcess
from convserve_server.process.worker_spec import WorkerSpec, receive_spec
from convserve_server.protocols.base import Interceptor, Service
from convserve_server.protocols.convserve_v1.service import SERVICE, ConvserveV1
from convserve_server.protocols.health import Health
from convserve_server.protocols.reflection import make_reflection
from convserve_server.protocols.router import Router
from convserve_server.settings.settings import Settings
from convserve_server.telemetry.observer import NO_OBSERVER, Observer
from convserve_server.transports.base import Transport, TransportOptions

log = logging.getLogger(__name__)

#: No call for so long when asked to stop: none is on its way, s.
_QUIET_S = 0.1

#: Of the grace period, kept to send the last answers, s.
_FLUSH_S = 1.0

#: Beyond the grace period, until a worker without a supervisor ends in any case, s.
_KILL_AFTER_S = 5.0

#: How often to look whether file descriptors are left, s.
_LOOK_S = 1.0


class Worker:
    """Wires the parts of a worker together.

    Args:
        settings: with sizes chosen; see host/resources.py.
        transports: where calls come from; several serve at once.
        load: makes a model of its name and file.
        link: to the supervisor of several workers; None without one.
        services: beside ours, health and reflection; each is given the core.
        interceptors: wrap the handlers of all methods; the first is the outermost.
        observer: of the core.
    """

    def __init__(
        self,
        settings: Settings,
        transports: Sequence[Transport],
        load: Load,
        link: SupervisorLink | None = None,
        services: Sequence[Callable[[Classifier], Service]] = (),
        interceptors: Sequence[Interceptor] = (),
        observer: Observer = NO_OBSERVER,
    ) -> None:
        self._settings = settings
        self._transports = transports
        self._link = link
        self._served: frozenset[str] = frozenset()
        permits = SingleProcess() if link is None else link
        self.repository = Repository(self._limits, permits, self._report, observer)
        self.loader = FolderLoader(
            Path(settings.models.folder), load, self.repository, permits, settings.models.versions
        )
        if link is not None:
            link.on_change = self.loader.scan_now
        self._decoding = DecodePool(
            settings.engine.decode_threads,
            settings.batching.max_queue,
            settings.batching.max_queue_bytes,
            observer=observer,
        )
        classifier = Classifier(
            self.repository, self._decoding, settings.limits.max_images, observer
        )
        self._health = Health()
        ours: list[Service] = [
            ConvserveV1(classifier, settings.limits.max_stream_bytes),
            self._health,
        ]
        added = [make(classifier) for make in services]
        described = [service.name for service in ours]
        self._router = Router(
            [*ours, *added, *make_reflection(described)],
            interceptors,
            settings.limits.max_message_bytes,
        )
        self._started = False

    def _limits(self, name: str) -> ModelLimits:
        settings = self._settings
        return ModelLimits(
            settings.batching.max_batch,
            settings.batching.max_queue,
            settings.batching.max_queue_bytes,
            settings.batching.max_delay_ms / 1000,
            settings.limits.max_pixels,
            settings.limits.max_decoder_bytes,
        )

    def start(self, stop: threading.Event | None = None) -> bool:
        """Load what is there, then listen.

        Args:
            stop: set when the worker should stop before it listens.

        Returns: whether it listens.

        Raises:
            OSError: if the address cannot be bound.
        """
        self.loader.scan()
        if self._link is not None and not self._has_models(self._link, stop or threading.Event()):
            return False
        for transport in self._transports:
            transport.start(self._router)
        self._started = True
        self._report(frozenset(model.name for model in self.repository.models()))
        self.loader.watch(self._settings.models.scan_s)
        return True

    def _has_models(self, link: SupervisorLink, stop: threading.Event) -> bool:
        """Wait while this worker lacks a model that others serve, or that another tries.

        Its share of the connections would get errors; so long as it does not listen, the others
        have them.

        Returns: False if told to stop before.
        """
        reported: tuple[str, ...] = ()
        while not stop.is_set():
            awaited = self.loader.awaited()
            missing = link.missing()
            if missing and missing != reported:
                log.warning(
                    "taking no calls until there is a model for each that the other workers serve: "
                    "%s cannot be loaded",
                    ", ".join(missing),
                )
            reported = missing
            if not missing and not awaited:
                return True
            self.loader.wait_for_news(self._settings.models.scan_s)
            self.loader.scan()
        return False

    def stop(self) -> int:
        """Drain: refuse new calls, answer those in flight within the grace period.

        The connections stay open: grpcio's own shutdown, which sends GOAWAY first, answers calls
        that come in meanwhile with CANCELLED. When the process ends they see a closed connection,
        which is UNAVAILABLE. close() is for those who go on living.

        Returns: calls that were cut off.
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
        return left

    def answered(self) -> int:
        """Calls answered so far, with a result or an error."""
        return self._router.answered()

    @property
    def waits_for_models(self) -> bool:
        """Whether there was nothing in the models folder when last looked."""
        return self.loader.folder_is_empty

    def close(self) -> None:
        """Close all connections and unload all models."""
        for transport in self._transports:
            transport.close()
        self._decoding.close()
        self.loader.close(timeout_s=_FLUSH_S)
        self.repository.close(timeout_s=_FLUSH_S)

    def _report(self, names: frozenset[str]) -> None:
        """Tell health which models are served; called by the repository after every change."""
        if not self._started:
            return
        for service in ("", SERVICE):
            self._health.set(service, bool(names))
        for name in names:
            self._health.set(name, True)
        for name in self._served - names:
            self._health.set(name, None)
        self._served = names


def make_transport(settings: Settings, port: int) -> Transport:
    """Returns the transport that the settings ask for.

    Args:
        settings: with sizes chosen.
        port: to listen on.
    """
    options = TransportOptions(
        host=settings.listen.host,
        port=port,
        max_message_bytes=settings.limits.max_message_bytes,
        keepalive_s=settings.listen.keepalive_s,
        max_connection_age_s=settings.listen.max_connection_age_s,
        reuse_port=True,
    )
    # Imported when asked for: the other one may not be installed, and costs memory.
    if settings.listen.front == "native":
        from convserve_server.transports.native import NativeTransport

        return NativeTransport(options)
    from convserve_server.transports.grpcio import GrpcioTransport

    return GrpcioTransport(options)


def make_allowance(spec: WorkerSpec) -> ThreadAllowance | None:
    """What an engine may use beyond its own threads; None if there is no more."""
    settings = spec.settings
    if settings.process.workers == 1 or spec.many_threads <= settings.engine.engine_threads:
        return None
    activity = EngineActivity(spec.engine_activity, spec.number - 1)
    return ThreadAllowance(spec.many_threads, frozenset(spec.cpus), activity)


def run(spec: WorkerSpec, connection: socket.socket) -> int:
    """Serve until told to stop.

    Args:
        spec: of this worker.
        connection: to the supervisor.

    Returns: the exit status.
    """
    settings = spec.settings
    grace_s = settings.process.grace_s
    stop = threading.Event()
    # The end of the connection also shows its sudden death.
    link = SupervisorLink(connection, on_end=lambda: _stop(stop, grace_s))
    link.start(settings.process.heartbeat_s)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # These reach the whole group; the supervisor decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        check_installation()
        provider = choose_provider(settings.engine.device)
        options = EngineOptions(
            settings.engine.device,
            settings.engine.engine_threads,
            settings.batching.max_batch,
            spec.batch_s,
            settings.engine.max_device_bytes,
        )
        allowance = make_allowance(spec)

        def load(name: str, path: Path) -> LoadedModel:
            return load_bundle(path, partial(load_engine, options=options, allowance=allowance))

        worker = Worker(settings, [make_transport(settings, spec.port)], load, link)
        if not worker.start(stop):
            return 0
    except (EngineError, ImportError) as error:
        link.send(CannotStart(one_line(error)))
        return EXIT_CONFIG
    except OSError as error:
        link.send(CannotStart(one_line(error)))
        return 1
    log.info(
        "serving with %s, %d engine threads, queues of up to %d images",
        provider, settings.engine.engine_threads, settings.batching.max_queue,
    )  # fmt: skip
    if worker.waits_for_models and spec.number == 1:
        log.info("no models in %s yet; waiting for the first", settings.models.folder)
    if spec.low_memory:
        trim_from_now_on(stop)
    threading.Thread(target=_watch_descriptors, args=(stop,), daemon=True).start()
    link.send(Ready())
    stop.wait()
    log.info("stopping, at most %g s", grace_s)
    left = worker.stop()
    calls = worker.answered()
    log.log(
        logging.WARNING if left else logging.INFO,
        f"stopped, {calls:,} calls answered, {left:,} cut off",
        extra={"calls": calls, "cut_off": left},
    )
    return 0


def _stop(stop: threading.Event, grace_s: float) -> None:
    """Stop, and end in any case: a worker may be held up before it looks, loading a model."""
    stop.set()
    time.sleep(grace_s + _KILL_AFTER_S)
    os._exit(1)


def _watch_descriptors(stop: threading.Event) -> None:
    """Say when there are no file descriptors left for connections, and when there are again."""
    short = False
    while not stop.wait(_LOOK_S):
        if limit_reached() == short:
            continue
        short = not short
        if short:
            log.error(
                "no file descriptors are left: new connections wait until others are closed; allow "
                "more (ulimit -n, LimitNOFILE), or close idle connections"
            )
        else:
            log.info("there are file descriptors for new connections again")


def main() -> None:
    """Entry point of the process."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        spec = receive_spec(connection)
    except (EOFError, OSError):
        sys.exit(1)
    configure_logging(spec.settings.log.log_level, spec.settings.log.log_format)
    status = run(spec, connection)
    logging.shutdown()
    # Not by way of Python's own exit: see Worker.stop, and threads may hang in a driver.
    os._exit(status)


if __name__ == "__main__":
    main()

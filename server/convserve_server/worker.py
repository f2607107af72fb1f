"""One process that serves: front, dispatcher, repository. Started and watched by the supervisor.

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
from functools import partial
from pathlib import Path

from convserve_server.decode.decoding import DecodePool
from convserve_server.engines.engine import (
    EngineOptions,
    Room,
    check_installation,
    choose_provider,
    load_engine,
)
from convserve_server.engines.session_engine import EngineError
from convserve_server.front import Front, FrontOptions
from convserve_server.host.descriptors import limit_reached
from convserve_server.host.engine_activity import EngineActivity
from convserve_server.host.heap import trim_from_now_on
from convserve_server.logs import configure_logging
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import EXIT_CONFIG, CannotStart, Ready, one_line
from convserve_server.process.permits import SingleProcess
from convserve_server.process.worker_spec import WorkerSpec, receive_spec
from convserve_server.repository import Limits, Loader, Repository
from convserve_server.service import service
from convserve_server.service.dispatcher import Dispatcher
from convserve_server.settings.settings import Settings

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
        front: where calls come from.
        load: makes the engine of a model file.
        link: to the supervisor of several workers; None without one.
    """

    def __init__(
        self, settings: Settings, front: Front, load: Loader, link: SupervisorLink | None = None
    ) -> None:
        self._settings = settings
        self._front = front
        self._link = link
        self._served: frozenset[str] = frozenset()
        self._repository = Repository(
            Path(settings.models.folder),
            load,
            Limits(
                settings.batching.max_batch,
                settings.batching.max_queue,
                settings.batching.max_queue_bytes,
                settings.batching.max_delay_ms / 1000,
                settings.limits.max_pixels,
                settings.limits.max_decoder_bytes,
            ),
            settings.models.versions,
            self._report,
            SingleProcess() if link is None else link,
        )
        if link is not None:
            link.on_change = self._repository.look_now
        self._decoding = DecodePool(
            settings.engine.decode_threads,
            settings.batching.max_queue,
            settings.batching.max_queue_bytes,
        )
        max_images = settings.limits.max_images
        methods = service.Service(self._repository, self._decoding, max_images).methods()
        self._dispatcher = Dispatcher(front, methods)
        self._started = False

    def start(self, stop: threading.Event | None = None) -> bool:
        """Load what is there, then listen.

        Args:
            stop: set when the worker should stop before it listens.

        Returns: whether it listens.

        Raises:
            OSError: if the address cannot be bound.
        """
        self._repository.scan()
        if self._link is not None and not self._has_models(self._link, stop or threading.Event()):
            return False
        self._front.start(self._dispatcher.handle)
        self._started = True
        self._report(frozenset(model.name for model in self._repository.models()))
        self._repository.watch(self._settings.models.scan_s)
        return True

    def _has_models(self, link: SupervisorLink, stop: threading.Event) -> bool:
        """Wait while this worker lacks a model that others serve, or that another tries.

        Its share of the connections would get errors; so long as it does not listen, the others
        have them.

        Returns: False if told to stop before.
        """
        reported: tuple[str, ...] = ()
        while not stop.is_set():
            awaited = self._repository.awaited()
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
            self._repository.wait_for_news(self._settings.models.scan_s)
            self._repository.scan()
        return False

    def stop(self) -> int:
        """Drain: refuse new calls, answer those in flight within the grace period.

        The connections stay open: grpcio's own shutdown, which sends GOAWAY first, answers calls
        that come in meanwhile with CANCELLED. When the process ends they see a closed connection,
        which is UNAVAILABLE. close() is for those who go on living.

        Returns: calls that were cut off.
        """
        end = time.monotonic() + self._settings.process.grace_s
        self._front.drain()
        # Calls on their way here, from callers who could not know, are still served.
        process = self._settings.process
        lame_duck_s = min(process.lame_duck_s, process.grace_s)
        self._dispatcher.wait_quiet(_QUIET_S, lame_duck_s)
        self._dispatcher.drain()
        left = self._dispatcher.wait_idle(max(0.0, end - _FLUSH_S - time.monotonic()))
        self._dispatcher.abandon()
        self._front.flush(max(_FLUSH_S, end - time.monotonic()))
        return left

    def answered(self) -> int:
        """Calls answered so far, with a result or an error."""
        return self._dispatcher.answered()

    @property
    def waits_for_models(self) -> bool:
        """Whether there was nothing in the models folder when last looked."""
        return self._repository.folder_is_empty

    def close(self) -> None:
        """Close all connections and unload all models."""
        self._front.close()
        self._decoding.close()
        self._repository.close(timeout_s=_FLUSH_S)

    def _report(self, names: frozenset[str]) -> None:
        """Tell health which models are served; called by the repository after every change."""
        if not self._started:
            return
        for service_ in ("", service.SERVICE):
            self._front.set_health(service_, bool(names))
        for name in names:
            self._front.set_health(name, True)
        for name in self._served - names:
            self._front.set_health(name, None)
        self._served = names


def make_front(settings: Settings, port: int) -> Front:
    """The front that the settings ask for.

    Args:
        settings: with sizes chosen.
        port: to listen on.
    """
    options = FrontOptions(
        host=settings.listen.host,
        port=port,
        methods=service.UNARY_METHODS,
        services=(service.SERVICE,),
        max_message_bytes=settings.limits.max_message_bytes,
        max_stream_bytes=settings.limits.max_stream_bytes,
        keepalive_s=settings.listen.keepalive_s,
        max_connection_age_s=settings.listen.max_connection_age_s,
        reuse_port=True,
    )
    # Imported when asked for: the other one may not be installed, and costs memory.
    if settings.listen.front == "native":
        from convserve_server.fronts.native_front import NativeFront

        return NativeFront(options)
    from convserve_server.fronts.grpcio_front import GrpcioFront

    return GrpcioFront(options)


def make_room(spec: WorkerSpec) -> Room | None:
    """What an engine may use beyond its own threads; None if there is no more."""
    settings = spec.settings
    if settings.process.workers == 1 or spec.many_threads <= settings.engine.engine_threads:
        return None
    activity = EngineActivity(spec.engine_activity, spec.number - 1)
    return Room(spec.many_threads, frozenset(spec.cpus), activity)


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
        load = partial(load_engine, options=options, room=make_room(spec))
        worker = Worker(settings, make_front(settings, spec.port), load, link)
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

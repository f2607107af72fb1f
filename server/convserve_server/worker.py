"""One process that serves: front, dispatcher, repository. Started and watched by the supervisor.

    python -m convserve_server.worker SETTINGS_AS_JSON PORT READY_FD PLACE_AS_JSON

PLACE says which of the workers it is; see Place. A byte on READY_FD says that it serves; the end of
standard input, or SIGTERM, that it should stop.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from convserve_server.config import Settings
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
from convserve_server.host.heap import trim_from_now_on
from convserve_server.host.neighbours import Neighbours
from convserve_server.logs import configure_logging
from convserve_server.repository import Limits, Loader, Repository
from convserve_server.service import service
from convserve_server.service.dispatcher import Dispatcher
from convserve_server.supervisor import EXIT_CONFIG, MOST_SAID, READY

log = logging.getLogger(__name__)

#: No call for so long when asked to stop: none is on its way, s.
_QUIET_S = 0.1

#: Of the grace period, kept to send the last answers, s.
_FLUSH_S = 1.0


class Worker:
    """Wires the parts of a worker together.

    Args:
        settings: with sizes chosen; see sizing.py.
        port: to listen on, shared with the other workers.
        front: where calls come from.
        load: makes the engine of a model file.
    """

    def __init__(self, settings: Settings, front: Front, load: Loader) -> None:
        self._settings = settings
        self._front = front
        self._served: frozenset[str] = frozenset()
        self._repository = Repository(
            Path(settings.models),
            load,
            Limits(
                settings.max_batch,
                settings.max_queue,
                settings.max_queue_bytes,
                settings.max_delay_ms / 1000,
                settings.max_pixels,
                settings.max_decoder_bytes,
            ),
            settings.versions,
            self._report,
        )
        self._decoding = DecodePool(
            settings.decode_threads, settings.max_queue, settings.max_queue_bytes
        )
        methods = service.Service(self._repository, self._decoding, settings.max_images).methods()
        self._dispatcher = Dispatcher(front, methods)
        self._started = False

    def start(self) -> None:
        """Load what is there, then listen.

        Raises:
            OSError: if the address cannot be bound.
        """
        self._repository.scan()
        self._front.start(self._dispatcher.handle)
        self._started = True
        self._report(frozenset(model.name for model in self._repository.models()))
        self._repository.watch(self._settings.scan_s)

    def stop(self) -> int:
        """Drain: refuse new calls, answer those in flight within the grace period.

        The connections stay open: grpcio's own shutdown, which sends GOAWAY first, answers calls
        that come in meanwhile with CANCELLED. When the process ends they see a closed connection,
        which is UNAVAILABLE. close() is for those who go on living.

        Returns: calls that were cut off.
        """
        end = time.monotonic() + self._settings.grace_s
        self._front.drain()
        # Calls on their way here, from callers who could not know, are still served.
        lame_duck_s = min(self._settings.lame_duck_s, self._settings.grace_s)
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
        host=settings.host,
        port=port,
        methods=service.UNARY_METHODS,
        services=(service.SERVICE,),
        max_message_bytes=settings.max_message_bytes,
        max_stream_bytes=settings.max_stream_bytes,
        keepalive_s=settings.keepalive_s,
        max_connection_age_s=settings.max_connection_age_s,
        reuse_port=True,
    )
    # Imported when asked for: the other one may not be installed, and costs memory.
    if settings.front == "native":
        from convserve_server.fronts.native_front import NativeFront

        return NativeFront(options)
    from convserve_server.fronts.grpcio_front import GrpcioFront

    return GrpcioFront(options)


@dataclass(frozen=True)
class Place:
    """What a worker is told of itself among the others.

    Attributes:
        number: of the worker, from 1.
        engines: file of the engines at work; see neighbours.py.
        threads: of an engine while those of all other workers are idle.
        cpus: that all workers are kept on, one each; empty if the system chooses.
        tight: whether memory is, so that none is kept for later.
        batch_s: longest batch on the CPU, by the time of a single image.
    """

    number: int
    engines: str
    threads: int
    cpus: list[int]
    tight: bool
    batch_s: float

    def room(self, settings: Settings) -> Room | None:
        """What an engine may use beyond its own threads; None if there is no more."""
        if settings.workers == 1 or self.threads <= settings.engine_threads:
            return None
        neighbours = Neighbours(Path(self.engines), self.number - 1)
        return Room(self.threads, frozenset(self.cpus), neighbours)


def run(settings: Settings, port: int, ready_fd: int, place: Place) -> int:
    """Serve until told to stop.

    Returns: the exit status.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C reaches the whole group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        check_installation()
        provider = choose_provider(settings.device)
        options = EngineOptions(
            settings.device,
            settings.engine_threads,
            settings.max_batch,
            place.batch_s,
            settings.max_device_bytes,
        )
        load = partial(load_engine, options=options, room=place.room(settings))
        worker = Worker(settings, make_front(settings, port), load)
        worker.start()
    except (EngineError, ImportError) as error:
        _refuse(ready_fd, error)
        return EXIT_CONFIG
    except OSError as error:
        _refuse(ready_fd, error)
        return 1
    log.info(
        "serving with %s, %d engine threads, queues of up to %d images",
        provider, settings.engine_threads, settings.max_queue,
    )  # fmt: skip
    if worker.waits_for_models and place.number == 1:
        log.info("no models in %s yet; waiting for the first", settings.models)
    if place.tight:
        trim_from_now_on(stop)
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    os.write(ready_fd, READY)
    stop.wait()
    log.info("stopping, at most %g s", settings.grace_s)
    left = worker.stop()
    calls = worker.answered()
    log.log(
        logging.WARNING if left else logging.INFO,
        f"stopped, {calls:,} calls answered, {left:,} cut off",
        extra={"calls": calls, "cut_off": left},
    )
    return 0


def _refuse(ready_fd: int, error: Exception) -> None:
    """Tell the supervisor, on one line, why this worker cannot start; it says so for all."""
    os.write(ready_fd, " ".join(str(error).split()).encode()[:MOST_SAID])


def _wait_for_end_of_input(stop: threading.Event) -> None:
    """The supervisor holds the other end, so this also notices its sudden death."""
    sys.stdin.buffer.read()
    stop.set()


def main() -> None:
    """Entry point of the process."""
    settings = Settings(**json.loads(sys.argv[1]))
    configure_logging(settings.log_level, settings.log_format)
    place = Place(**json.loads(sys.argv[4]))
    status = run(settings, int(sys.argv[2]), int(sys.argv[3]), place)
    logging.shutdown()
    sys.stdout.flush()
    # Not by way of Python's own exit: see Worker.stop, and threads may hang in a driver.
    os._exit(status)


if __name__ == "__main__":
    main()

"""One process that serves, started and watched by the supervisor.

    python -m convserve_server.process.worker SOCKET

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
from collections.abc import Callable, Mapping

from convserve_bundle.held_model import Model
from convserve_server.engines.base import NOT_MEASURED, EngineError, Loaded
from convserve_server.engines.bundles import load_model
from convserve_server.engines.cpu import ThreadAllowance
from convserve_server.engines.loader import EngineOptions, check_installation, choose_provider
from convserve_server.host.descriptors import limit_reached
from convserve_server.host.engine_activity import EngineActivity
from convserve_server.host.heap import trim_from_now_on
from convserve_server.host.shared_memory import shared, shared_number
from convserve_server.host.spare_cpus import SpareCpus
from convserve_server.logs import configure_logging
from convserve_server.process.control import RemoteControl
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import (
    EXIT_CONFIG,
    CannotStart,
    Leave,
    Ready,
    SetAccessLog,
    UseKeys,
    one_line,
)
from convserve_server.process.remote_administration import RemoteAdministration
from convserve_server.process.serving import (
    Worker,
    make_http_transport,
    make_traces,
    make_transport,
)
from convserve_server.process.worker_spec import WorkerSpec, receive_spec
from convserve_server.protocols.key_check import KeyCheck
from convserve_server.security.keys import read_keys
from convserve_server.security.rates import Rates
from convserve_server.settings.setting import SettingError
from convserve_server.telemetry.shared_statistics import SharedStatistics
from convserve_server.transports.base import Transport

log = logging.getLogger(__name__)

#: Beyond the grace period, until a worker without a supervisor ends in any case, s.
_KILL_AFTER_S = 5.0

#: Longest time until a signal is handled, s.
_SIGNAL_S = 0.2

#: A model that is loaded while others are served leaves them so many times the time that each of
#: its runs takes: they then hardly wait longer.
_PAUSE = 3.0
#: Others are being served for so long after a call was answered, s.
_BUSY_S = 0.2

#: How often to look whether file descriptors are left, s.
_LOOK_S = 1.0


class ModelLoader:
    """Loads models as the settings of each have it.

    Args:
        spec: of this worker.

    Attributes:
        answered: returns how many calls the worker has answered: while it answers some, it loads in
            small steps.
        spare: CPUs of other workers; None: they are left to them.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.answered: Callable[[], int] = lambda: 0
        self._seen = 0
        self._busy_until = 0.0
        self._spec = spec
        # One view of the file for all engines: it counts how many of them are at work.
        self._activity = (
            EngineActivity(spec.engine_activity, spec.number - 1)
            if spec.settings.process.workers > 1
            else None
        )
        self.spare = self._make_spare()

    def load(self, name: str, model: Model, batch_s: Mapping[int, float] = NOT_MEASURED) -> Loaded:
        """Loads a version of a model.

        Args:
            name: of the model.
            model: its file, or what that holds.
            batch_s: seconds by size of batch, if they are known; otherwise they are measured.

        Raises:
            BundleError, EngineError, OSError: see load_model.
        """
        settings, own = self._spec.settings, self._spec.settings.for_model(name)
        options = EngineOptions(
            own.device,
            own.engine_threads,
            own.max_batch,
            self._spec.batch_s,
            settings.engine.max_device_bytes,
            pause=self._pause,
            engine=own.engine,
            tell=self._spec.number == 1,
        )
        return load_model(model, options, self.allowance(name), batch_s)

    def _pause(self, spent_s: float) -> None:
        answered, now = self.answered(), time.monotonic()
        if answered != self._seen:
            self._seen, self._busy_until = answered, now + _BUSY_S
        if now < self._busy_until:
            time.sleep(_PAUSE * spent_s)

    def allowance(self, name: str) -> ThreadAllowance | None:
        """Returns what the engine of a model may use beyond its own threads; None for no more."""
        threads = self._spec.many_threads_of(name)
        if self._activity is None or threads <= self._spec.settings.for_model(name).engine_threads:
            return None
        return ThreadAllowance(
            threads, frozenset(self._spec.cpus), self._activity, self._spare_of(name)
        )

    def _make_spare(self) -> SpareCpus | None:
        spec = self._spec
        if self._activity is None or spec.settings.process.spare_cpus == "off":
            return None
        others = frozenset(spec.cpus) - set(spec.cpus[spec.number - 1 : spec.number])
        return SpareCpus(self._activity, others, spec.settings.process.workers)

    def _spare_of(self, name: str) -> SpareCpus | None:
        """Returns the CPUs for more batches of a model; several threads each would be too many."""
        return self.spare if self._spec.settings.for_model(name).engine_threads == 1 else None


def run(spec: WorkerSpec, connection: socket.socket) -> int:
    """Serves until asked to stop.

    Args:
        spec: of this worker.
        connection: to the supervisor.

    Returns: the exit status.
    """
    settings = spec.settings
    grace_s = settings.process.grace_s
    stop = threading.Event()

    def on_end() -> None:
        administration.close()
        _stop(stop, grace_s)

    # The end of the connection also shows its sudden death.
    link = SupervisorLink(connection, on_end)
    administration = RemoteAdministration(link)
    key_check = _make_key_check(spec)
    if key_check is not None:
        link.on(UseKeys, lambda message: key_check.use(read_keys(message.text)))
    link.start(settings.process.heartbeat_s)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # These reach the whole group; the supervisor decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        check_installation()
        provider = choose_provider(settings.engine.device, settings.engine.engine)
        transports: list[Transport] = [make_transport(settings, spec.port, spec.guard_field)]
        if spec.http_port:
            transports.append(make_http_transport(settings, spec.http_port, key_check))
        control = RemoteControl(link, shared_number(spec.switch), administration)
        loader = ModelLoader(spec)
        statistics = SharedStatistics(shared(spec.statistics), spec.statistics_slot)
        worker = Worker(
            settings,
            transports,
            loader.load,
            control,
            interceptors=() if key_check is None else (key_check,),
            statistics=statistics,
            traces=make_traces(settings, spec.number),
        )
        link.on(Leave, lambda _: worker.leave())
        link.on(SetAccessLog, lambda new: worker.follower.set_access_log(new.mode, new.share))
        loader.answered = worker.answered
        if not worker.start(stop):
            return 0
    except (EngineError, ImportError, SettingError) as error:
        link.send(CannotStart(one_line(error)))
        return EXIT_CONFIG
    except OSError as error:
        link.send(CannotStart(one_line(error)))
        return 1
    log.info(
        "serving with %s, %d engine threads, queues of up to %d images",
        provider, settings.engine.engine_threads, settings.batching.max_queue,
    )  # fmt: skip
    if spec.low_memory:
        trim_from_now_on(stop)
    threading.Thread(target=_watch_descriptors, args=(stop,), daemon=True).start()
    link.send(Ready(worker.ports[0] if spec.guard_field else 0))
    # Again and again: Python runs a handler on this thread, and a signal that comes just before the
    # thread blocks does not wake it.
    while not stop.wait(_SIGNAL_S):
        if settings.telemetry.metrics_port:
            _note_now(worker)
        if loader.spare is not None:
            loader.spare.settle()
    log.info("stopping, at most %g s", grace_s)
    left = worker.stop()
    calls = worker.answered()
    log.log(
        logging.WARNING if left else logging.INFO,
        f"stopped, {calls:,} calls answered, {left:,} aborted",
        extra={"calls": calls, "aborted": left},
    )
    return 0


def _make_key_check(spec: WorkerSpec) -> KeyCheck | None:
    """Returns what checks the keys of callers; None where there are none."""
    if spec.keys is None:
        return None
    return KeyCheck(read_keys(spec.keys), Rates(shared(spec.rates), spec.rates))


def _stop(stop: threading.Event, grace_s: float) -> None:
    """Stops, and ends in any case: a worker may be held up before it looks, loading a model."""
    stop.set()
    time.sleep(grace_s + _KILL_AFTER_S)
    os._exit(1)


def _note_now(worker: Worker) -> None:
    """Writes how it is now to the statistics; a fault of ours there must not end the worker."""
    try:
        worker.note_now()
    except Exception:
        log.exception("what waits cannot be counted")


def _watch_descriptors(stop: threading.Event) -> None:
    """Logs when there are no file descriptors left for connections, and when there are again."""
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
    """Runs the process; its entry point."""
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

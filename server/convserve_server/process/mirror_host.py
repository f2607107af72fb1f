"""The process that copies models from object storage to this machine.

    python -m convserve_server.process.mirror_host SOCKET

SOCKET is the number of a stream socket to the supervisor, whose first message is the settings; see
process/messages.py. Its end, or SIGTERM, says that the process should stop. What talks to stores
is imported here alone, so that the supervisor stays small and never waits for a network.
"""

import logging
import os
import random
import signal
import socket
import sys
import threading
import time

from convserve_server.logs import configure_logging
from convserve_server.process import mirror
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import (
    EXIT_CONFIG,
    CannotStart,
    InUse,
    Mirrored,
    Ready,
    SetLogLevel,
    UseSettings,
    one_line,
)
from convserve_server.process.mirror import Mirror
from convserve_server.process.worker_spec import decode_settings, receive_line
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings
from convserve_store.bundles import BundleStore
from convserve_store.errors import AccessError, StoreError, StoreUrlError
from convserve_store.location import open_location

log = logging.getLogger(__name__)

#: Until the store is asked again after a failure, s; twice as long after each further one.
_FIRST_DELAY_S, _LAST_DELAY_S = 1.0, 60.0
#: Longest time until a signal is handled, s.
_SIGNAL_S = 0.2


class MirrorProcess:
    """Keeps the copies as the store is, until it is asked to stop.

    Args:
        settings: Of the server.
        link: To the supervisor.
        stop: Set when it should end.
    """

    def __init__(self, settings: Settings, link: SupervisorLink, stop: threading.Event) -> None:
        self._url, self._folder = settings.models.folder, settings.models.path
        self._mirror = Mirror(self._folder, settings, self._open)
        self._link = link
        self._stop = stop
        self._news = threading.Event()
        self._reached = 0.0
        self._failures = 0
        self._failing_since = 0.0
        link.on(InUse, self._on_in_use)
        link.on(UseSettings, self._on_settings)
        link.on(SetLogLevel, lambda one: logging.getLogger().setLevel(one.level.upper()))

    def run(self) -> int:
        """Returns the exit status.

        Raises:
            SettingError, OSError: The folder of copies cannot be used.
        """
        with mirror.held(self._folder, self._url) as complete:
            self._link.send(Ready())
            log.info("copies of %s in %s", self._url, self._folder)
            while not self._stop.is_set():
                self._news.clear()
                try:
                    self._mirror.update()
                except (StoreError, OSError) as error:
                    if not complete and not self._reached and _is_lasting(error):
                        self._link.send(CannotStart(one_line(mirror.described(error))))
                        return EXIT_CONFIG
                    self._on_failure(mirror.described(error), complete)
                else:
                    self._on_success()
                self._wait()
        return 0

    def _open(self) -> BundleStore:
        return BundleStore(open_location(self._url, "models"))

    def _on_success(self) -> None:
        if not self._reached:
            mirror.note_complete(self._folder, self._url)
        if self._failures:
            log.info(
                "the store answers again, after %.0f s", time.monotonic() - self._failing_since
            )
        self._failures, self._reached = 0, time.time()
        self._link.send(Mirrored(True, self._reached))

    def _on_failure(self, problem: str, complete: bool) -> None:
        if not self._failures:
            self._failing_since = time.monotonic()
            there = complete or bool(self._reached)
            log.error(
                "%s; %s; trying again until it answers",
                problem,
                "the copies of before are served" if there else "no model is served yet",
            )
        self._failures += 1
        whole = complete or bool(self._reached)
        self._link.send(Mirrored(whole, self._reached, one_line(problem)))

    def _wait(self) -> None:
        """Waits until the store should be asked again: not at the same time as other servers."""
        delay_s = self._mirror.settings.models.poll_s
        if self._failures:
            longest_s = max(delay_s, _LAST_DELAY_S)
            # Not 2 ** failures, which becomes a number of any size.
            delay_s = min(longest_s, _FIRST_DELAY_S * 2.0 ** min(self._failures - 1, 16))
        end = time.monotonic() + delay_s * random.uniform(0.75, 1.25)  # noqa: S311
        # In short waits: Python runs handlers of signals on this thread.
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            if self._news.wait(min(left, _SIGNAL_S)):
                return

    def _on_in_use(self, message: InUse) -> None:
        self._mirror.in_use = message
        self._news.set()

    def _on_settings(self, message: UseSettings) -> None:
        self._mirror.settings = decode_settings(message.text.encode())
        self._news.set()


def run(settings: Settings, connection: socket.socket) -> int:
    """Copies models until asked to stop.

    Args:
        settings: Of the server.
        connection: To the supervisor.

    Returns: The exit status.
    """
    stop = threading.Event()
    link = SupervisorLink(connection, on_end=stop.set)
    process = MirrorProcess(settings, link, stop)
    link.start(settings.process.heartbeat_s)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # These reach the whole group; the supervisor decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        return process.run()
    except (SettingError, OSError) as error:
        problem = mirror.described(error)
        link.send(CannotStart(one_line(problem)))
        return EXIT_CONFIG


def _is_lasting(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in mirror.LASTING
    return isinstance(error, AccessError | StoreUrlError)


def main() -> None:
    """Runs the process; its entry point."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        settings = decode_settings(receive_line(connection))
    except (EOFError, OSError):
        sys.exit(1)
    configure_logging(settings.log.log_level, settings.log.log_format)
    for name in ("aiobotocore", "botocore", "fsspec", "s3fs"):
        logging.getLogger(name).setLevel(logging.WARNING)
    status = run(settings, connection)
    logging.shutdown()
    # Not by way of Python's own exit: a request to a store may go on.
    os._exit(status)


if __name__ == "__main__":
    main()

"""One worker over all its restarts: the process, and what became of those before it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from convserve_server.core.permits import Bundle
from convserve_server.process.channel import Channel
from convserve_server.process.worker_spec import WorkerSpec, encode_spec

#: From the start of a process to its first message: Python and the libraries are being read, s.
START_S = 120.0
#: Until the next start after a failure, s; twice as long after each further one.
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 5.0
#: Longest wait for a restart while no worker serves, s.
_URGENT_DELAY_S = 0.5


@dataclass
class Slot:
    """One worker of a server, over all its restarts."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    #: Why the worker cannot start, in its own words.
    refusal: str = ""
    started: float = 0.0
    #: When the worker last sent something; its start until then.
    heard: float = 0.0
    #: What it loads, and since when.
    loading: dict[Bundle, float] = field(default_factory=dict)
    #: How many processes the kernel had killed for want of memory when the worker started.
    oom_kills: int = 0
    #: The worker accepts calls.
    ready: bool = False
    #: Models that the other workers serve and this one cannot: it accepts no calls until it can.
    missing: tuple[str, ...] = ()
    #: It has sent a message.
    spoke: bool = False
    #: Why we have killed it, and when; empty if we have not.
    killed: str = ""
    killed_at: float = 0.0
    failures: int = 0
    #: When the worker before it ended, and when to start the next; while process is None.
    ended: float = 0.0
    due: float = field(default_factory=time.monotonic)

    def launch(self, spec: WorkerSpec, environment: Mapping[str, str]) -> None:
        """Starts a process with one end of a socket, and sends its spec.

        Raises:
            OSError: No memory, process or file descriptor is left.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                os.set_inheritable(theirs.fileno(), True)
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "convserve_server.process.worker", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), spec.engine_activity),
                    env=dict(environment),
                )
        except BaseException:
            ours.close()
            raise
        self.channel = Channel(ours)
        self.channel.send_line(encode_spec(spec))
        self.started = self.heard = time.monotonic()
        self.ready, self.spoke, self.missing = False, False, ()
        self.loading, self.refusal, self.killed = {}, "", ""

    def put_off(self) -> None:
        """Sets when to start the next process: later after each failure in a row."""
        delay = _FIRST_DELAY_S * 2 ** (self.failures - 1) if self.failures else 0.0
        self.ended = time.monotonic()
        self.due = self.ended + min(_LAST_DELAY_S, delay)

    def next_start(self, *, urgent: bool) -> float:
        """Returns when to start the next process, by time.monotonic().

        Args:
            urgent: Whether no worker serves.
        """
        return min(self.due, self.ended + _URGENT_DELAY_S) if urgent else self.due

    def overdue(self, now: float, load_s: float) -> Bundle | None:
        """Returns the bundle that has been loading for longer than load_s at now."""
        return next((one for one, since in self.loading.items() if now - since > load_s), None)

    def silent(self, now: float, heartbeat_s: float) -> float:
        """Returns for how long the worker has given no sign of life, s; 0 if not for too long.

        Libraries may block all of a process while they load a model, so that counts as loading.
        """
        silence = now - self.heard
        most = heartbeat_s if self.spoke else START_S
        return 0.0 if self.loading or silence <= most else silence

    def excuse(self, late_s: float) -> None:
        """Does not count time against the worker in which we could not read its messages."""
        self.heard += late_s
        self.loading = {bundle: since + late_s for bundle, since in self.loading.items()}

    def release(self) -> int | None:
        """Closes the channel and forgets the process.

        Returns: Its exit status; None if the system does not let it end.
        """
        assert self.process is not None
        assert self.channel is not None
        self.channel.close()
        process, self.process, self.channel = self.process, None, None
        self.ended = time.monotonic()
        for last in (False, True):
            try:
                return process.wait(1.0)
            except subprocess.TimeoutExpired:
                if not last:
                    process.kill()
        return None

"""One process of a server over all its restarts, and what became of those before it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from convserve_server.process.channel import Channel

#: The modules that processes run: of a worker, of the one that answers operators, of a guard, and
#: of the one that copies models from object storage.
WORKER = "convserve_server.process.worker"
ADMIN_HOST = "convserve_server.process.admin_host"
GUARD = "convserve_server.process.guard"
MIRROR = "convserve_server.process.mirror_host"

#: From the start of a process to its first message: Python and the libraries are being read, s.
START_S = 120.0
#: Until the next start after a failure, s; twice as long after each further one.
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 5.0
#: Longest wait for a restart while no worker serves, s.
_URGENT_DELAY_S = 0.5


@dataclass(eq=False)
class Slot:
    """One process of a server, over all its restarts; most are workers.

    Attributes:
        number: Of the worker, or of the guard, from 1; 0 for a process that is neither.
        module: That the process runs, with the number of its socket as the argument.
        bank: In which of the worker's two slots the process counts; see
            telemetry/shared_statistics.py.
    """

    number: int
    module: str = WORKER
    bank: int = 0
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    #: Why the worker cannot start, in its own words.
    refusal: str = ""
    started: float = 0.0
    #: When the worker last sent something; its start until then.
    heard: float = 0.0
    #: How many processes the kernel had killed for want of memory when the worker started.
    oom_kills: int = 0
    #: The worker accepts calls.
    ready: bool = False
    #: Of a worker that guards pass clients on to; 0: none.
    port: int = 0
    #: It is to end, and another one replaces it.
    leaving: bool = False
    #: It has sent a message.
    spoke: bool = False
    #: Why we have killed it, and when; empty if we have not.
    killed: str = ""
    killed_at: float = 0.0
    failures: int = 0
    #: When the worker before it ended, and when to start the next; while process is None.
    ended: float = 0.0
    due: float = field(default_factory=time.monotonic)

    @property
    def is_worker(self) -> bool:
        """Whether it loads and serves models."""
        return self.module == WORKER

    @property
    def name(self) -> str:
        """What the log calls it."""
        if self.is_guard:
            return f"guard {self.number}"
        if self.is_mirror:
            return "the process that copies models"
        return f"worker {self.number}" if self.is_worker else "the administration's process"

    @property
    def is_guard(self) -> bool:
        """Whether it passes clients on to workers."""
        return self.module == GUARD

    @property
    def is_mirror(self) -> bool:
        """Whether it copies models from object storage."""
        return self.module == MIRROR

    def launch(
        self, first: bytes, descriptors: Sequence[int], environment: Mapping[str, str]
    ) -> None:
        """Starts a process with one end of a socket, and sends its first message.

        Args:
            first: One line.
            descriptors: That it inherits beside.
            environment: All variables.

        Raises:
            OSError: No memory, process or file descriptor is left.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                os.set_inheritable(theirs.fileno(), True)
                self.process = subprocess.Popen(
                    [sys.executable, "-m", self.module, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *descriptors),
                    env=dict(environment),
                )
        except BaseException:
            ours.close()
            raise
        self.channel = Channel(ours)
        self.channel.send_line(first)
        self.started = self.heard = time.monotonic()
        self.ready, self.spoke = False, False
        self.refusal, self.killed = "", ""

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

    def silent(self, now: float, heartbeat_s: float) -> float:
        """Returns for how long it has given no sign of life, s; 0 if not for too long."""
        silence = now - self.heard
        most = heartbeat_s if self.spoke else START_S
        return 0.0 if silence <= most else silence

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

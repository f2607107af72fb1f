"""A place for one worker: the process that is in it, and what became of those before."""

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from convserve_server.core.permits import Bundle
from convserve_server.process.channel import Channel

#: From the start of a process to its first message: Python and the libraries are being read, s.
START_S = 120.0


@dataclass
class Slot:
    """One worker of a server, over all its restarts."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    #: Why the worker cannot start, as it said.
    refusal: str = ""
    started: float = 0.0
    #: When the worker was last heard; its start until then.
    heard: float = 0.0
    #: What it loads, and since when.
    loading: dict[Bundle, float] = field(default_factory=dict)
    #: How many processes the kernel had killed for want of memory when the worker started.
    oom_kills: int = 0
    #: The worker takes calls.
    ready: bool = False
    #: Models that the other workers serve and this one cannot: it takes no calls until it can.
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

    def launch(
        self, command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str]
    ) -> None:
        """Start a process with one end of a socket, whose number is added to its command.

        Args:
            command: without that number.
            descriptors: that the process inherits beside it.
            environment: of the process.

        Raises:
            OSError: no memory, process or file descriptor is left.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                os.set_inheritable(theirs.fileno(), True)
                self.process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *descriptors),
                    env=dict(environment),
                )
        except BaseException:
            ours.close()
            raise
        self.channel = Channel(ours)
        self.started = self.heard = time.monotonic()
        self.ready, self.spoke, self.missing = False, False, ()
        self.loading, self.refusal, self.killed = {}, "", ""

    def overdue(self, now: float, load_s: float) -> Bundle | None:
        """The bundle that has been loading for longer than load_s at time.monotonic() now."""
        return next((one for one, since in self.loading.items() if now - since > load_s), None)

    def silent(self, now: float, heartbeat_s: float) -> float:
        """For how long the worker has given no sign of life, s; 0 if that is not too long.

        Libraries may hold up all of a process while they load a model, so that counts as loading.
        """
        silence = now - self.heard
        most = heartbeat_s if self.spoke else START_S
        return 0.0 if self.loading or silence <= most else silence

    def excuse(self, late_s: float) -> None:
        """Count time in which we could not listen not against the worker."""
        self.heard += late_s
        self.loading = {bundle: since + late_s for bundle, since in self.loading.items()}

    def release(self) -> int | None:
        """Close the channel and forget the process.

        Returns: its exit status; None if the system does not let it end.
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

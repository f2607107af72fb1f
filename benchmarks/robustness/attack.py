"""What an attack is, and the process that makes it, on a CPU of its own."""

import contextlib
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from benchmarks.harness.raw_http2 import Timeout

#: A server that opens no window for so long, or reads nothing, will not, s.
PATIENCE_S = 1.0
#: For a message from the process.
_WAIT_S = 120.0


class Attacker(Protocol):
    """One connection of an attack.

    Attributes:
        sent_bytes: over it.
    """

    sent_bytes: int

    def statuses(self) -> list[str]:
        """Returns the names of the statuses that came back."""

    def close(self) -> None:
        """Closes it, whatever the server thinks."""


@dataclass(frozen=True)
class Attack:
    """What is sent over each of some connections, which then stay open for a while.

    Args:
        name: for the table.
        port: gRPC's or HTTP's.
        connections: that do the same at once.
        open: makes a connection to an address.
        send: over one of them; returns when all is sent.
        most_mib: memory that it may take beside what the server has at rest.
        prepare: makes what is sent, before there is any connection.
        held_s: how long the connections then stay open.
        leaves: whether others are watched for as long again when they have been closed.
    """

    name: str
    port: Literal["grpc", "http"]
    connections: int
    open: Callable[[str], Attacker]
    send: Callable[[Any], None]
    most_mib: int
    prepare: Callable[[], object] = bytes
    held_s: float = 1.0
    leaves: bool = False

    def make(self, address: str) -> "Sent":
        """Sends everything, as far as the server accepts it; returns what came of it."""
        opened: list[Attacker] = []
        with ExitStack() as stack:
            # A server may have no connection left for us.
            with contextlib.suppress(OSError, Timeout):
                for _ in range(self.connections):
                    opened.append(self.open(address))
                    stack.callback(opened[-1].close)
            senders = [threading.Thread(target=self._send, args=(each,)) for each in opened]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            time.sleep(self.held_s)
            sent = sum(each.sent_bytes for each in opened)
            answers = Counter(status for each in opened for status in each.statuses())
        if self.leaves:
            time.sleep(self.held_s)
        return Sent(sent, dict(answers))

    def _send(self, connection: Attacker) -> None:
        with contextlib.suppress(OSError, Timeout):
            self.send(connection)


@dataclass(frozen=True)
class Sent:
    """What came of an attack.

    Attributes:
        size: bytes that were sent.
        answers: by status.
    """

    size: int
    answers: dict[str, int]


@contextmanager
def own_cpu() -> Iterator[Collection[int]]:
    """Keeps this process, and those that it starts, off one CPU; yields that one.

    Where there is only one CPU, all share it.
    """
    before = os.sched_getaffinity(0)
    own = {max(before)} if len(before) > 1 else before
    os.sched_setaffinity(0, before - own or before)
    try:
        yield own
    finally:
        os.sched_setaffinity(0, before)


class AttackProcess:
    """A process that makes an attack once it is asked to.

    Args:
        find: returns the attack by its name; a function of a module.
        arguments: of find.
        address: of the server.
        cpus: that it may use.
    """

    def __init__(
        self,
        find: Callable[..., Attack],
        arguments: tuple[object, ...],
        address: str,
        cpus: Collection[int],
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(find, arguments, address, cpus, theirs))
        self._process.start()
        theirs.close()
        self._receive()

    def make(self) -> Sent:
        """Has the attack made; returns what came of it."""
        self._pipe.send("go")
        sent = self._receive()
        assert isinstance(sent, Sent)
        self._process.join()
        return sent

    def _receive(self) -> object:
        if not self._pipe.poll(_WAIT_S):
            self._process.kill()
            raise Timeout(f"the attacker says nothing for {_WAIT_S:g} s")
        return self._pipe.recv()


def _run(
    find: Callable[..., Attack],
    arguments: tuple[object, ...],
    address: str,
    cpus: Collection[int],
    pipe: Connection,
) -> None:
    os.sched_setaffinity(0, cpus)
    attack = find(*arguments)
    attack.prepare()
    pipe.send("ready")
    pipe.recv()
    pipe.send(attack.make(address))

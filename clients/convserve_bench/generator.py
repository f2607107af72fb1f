"""The loop that makes the load: one thread, all connections, no waiting but for the next event."""

from __future__ import annotations

import ctypes
import select
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convserve.errors import ServerUnavailable
from convserve_bench.caller_group import CallerGroup, Transports
from convserve_bench.connection import Connection
from convserve_bench.header_blocks import Field
from convserve_bench.load import Load
from convserve_bench.outcomes import Ended
from convserve_bench.schedule import Schedule
from convserve_bench.tally import Tally
from convserve_bench.tls_transport import ServerTls, TlsTransport
from convserve_bench.transport import Address, Transport

_TICK_S = 0.05
_PR_SET_TIMERSLACK = 29

clock = time.perf_counter

Watch = Callable[[float, Tally], None]
"""Called each tick: seconds since the first call, and what was counted so far."""


@dataclass(frozen=True)
class Calls:
    """What is sent.

    Attributes:
        address: To where.
        fields: Headers of each call.
        messages: Of gRPC, each with its head of 5 bytes; sent in turn.
        tls: How the server is spoken to; None: without TLS.
    """

    address: Address
    fields: Sequence[Field] = field(repr=False)
    messages: Sequence[bytes] = field(repr=False)
    tls: ServerTls | None = None


class Generator:
    """Makes the calls of one run.

    Attributes:
        seconds: How long was measured.
        cpu_s: Processor time of this process in that time; None before it began.
        calls: Calls that were over in that time.
        unsent: Calls that were to be sent and were not by the end.
        schedule: With a rate: what came of the schedule.
    """

    def __init__(self, load: Load, calls: Calls, tally: Tally, watch: Watch) -> None:
        """Connects with the first call.

        Args:
            load: How many, how long, at which rate.
            calls: What is sent, and to where.
            tally: Counts what comes of them.
            watch: Called each tick.
        """
        self.seconds = 0.0
        self.cpu_s: float | None = None
        self.calls = 0
        self.unsent = 0
        self.schedule: Schedule | None = None
        self._load = load
        self._calls = calls
        self._tally = tally
        self._watch = watch
        self._transports: Transports = {}
        shares = [load.callers // load.connections] * load.connections
        for number in range(load.callers % load.connections):
            shares[number] += 1
        self._groups = [CallerGroup(share, self._connect, self._transports) for share in shares]
        self._connected = 0
        self._begin_s = self._from_s = self._end_s = float("inf")
        self._cpu_from: tuple[float, int] | None = None

    @property
    def lost(self) -> tuple[int, str]:
        """How many connections were lost, and why the last one was; "" if none was."""
        reasons = [group.reason for group in self._groups if group.reason]
        return sum(group.lost for group in self._groups), reasons[-1] if reasons else ""

    def run(self) -> None:
        """Makes the calls, and waits for their answers; an interrupt leaves what was counted.

        Raises:
            ServerUnavailable: There was no connection within the timeout.
        """
        try:
            self._open()
            self._begin_s = clock()
            self._from_s = self._begin_s + self._load.warm_up_s
            self._end_s = self._from_s + self._load.seconds
            self._tally.between(self._from_s, self._end_s)
            self._make_calls()
        finally:
            self._stop_measuring(clock())
            self._tally.flush()
            for group in self._groups:
                group.close()

    def _open(self) -> None:
        before_s = clock()
        while not all(group.ready for group in self._groups):
            now_s = clock()
            lost, reason = self.lost
            if now_s - before_s > self._load.timeout_s:
                why = f": {reason}" if reason else ""
                raise ServerUnavailable(
                    f"no {self._load.connections} connections within"
                    f" {self._load.timeout_s:g} s{why}"
                )
            for group in self._groups:
                group.repair(now_s)
            self._wait(_TICK_S)

    def _make_calls(self) -> None:
        rate = self._load.rate
        if rate is None:
            for group in self._groups:
                group.begin_many(self._begin_s, group.callers)
        else:
            _sharpen_timers()
            self.schedule = Schedule(
                rate, self._begin_s, self._from_s, self._end_s, self._load.late_s
            )
        tick_s = self._begin_s
        while True:
            now_s = clock()
            if self.schedule is not None and self.cpu_s is None:
                self.schedule.send(now_s, self._groups)
            if now_s >= tick_s:
                self._tick(now_s)
                if now_s >= self._end_s and not any(group.busy for group in self._groups):
                    return
                tick_s = min([now_s + _TICK_S, *self._moments_after(now_s)])
            next_s = tick_s
            if self.schedule is not None and now_s < self.schedule.next_s < self._end_s:
                next_s = min(next_s, self.schedule.next_s)
            self._wait(max(0.0, next_s - clock()))

    def _moments_after(self, now_s: float) -> list[float]:
        return [moment for moment in (self._from_s, self._end_s) if moment > now_s]

    def _wait(self, seconds: float) -> None:
        """Waits for the next event, for at most so many seconds, and does what it asks for."""
        transports = self._transports
        writing = [fd for fd, (_, transport) in transports.items() if transport.writing]
        readable, writable, _ = select.select([*transports], writing, (), seconds)
        for fd in writable:
            if fd in transports:
                group, transport = transports[fd]
                self._count(group, group.write(transport))
        for fd in readable:
            if fd in transports:
                group, transport = transports[fd]
                self._count(group, group.read(transport, clock()))

    def _count(self, group: CallerGroup, ended: Sequence[Ended]) -> None:
        if not ended:
            return
        now_s = clock()
        self._tally.add(ended, now_s)
        if self.schedule is None and now_s < self._end_s:
            group.begin_many(now_s, len(ended))

    def _tick(self, now_s: float) -> None:
        if self._cpu_from is None and now_s >= self._from_s:
            self._cpu_from = (time.process_time(), self._tally.seen)
        for group in self._groups:
            group.repair(now_s)
            self._count(group, group.expire(now_s, self._load.timeout_s))
        if now_s >= self._end_s:
            self._stop_measuring(now_s)
            self.unsent += sum(group.give_up_waiting() for group in self._groups)
        self._tally.flush()
        self._watch(now_s - self._begin_s, self._tally)

    def _stop_measuring(self, now_s: float) -> None:
        if self.cpu_s is not None or self._cpu_from is None:
            return
        cpu_s, seen = self._cpu_from
        # Not from when we came to look: a machine that stalls may come late, even after the end.
        self.seconds = now_s - self._from_s
        self.cpu_s = time.process_time() - cpu_s
        self.calls = self._tally.seen - seen
        if self.schedule is not None:
            self.unsent = self.schedule.unsent(now_s)

    def _connect(self) -> Transport:
        self._connected += 1
        address, tls = self._calls.address, self._calls.tls
        connection = Connection(self._calls.fields, self._calls.messages, self._connected)
        if tls is None:
            return Transport(address, connection)
        return TlsTransport(address, connection, tls)


def _sharpen_timers() -> None:
    """Asks Linux to end waits on time: it is allowed 50 µs otherwise, a fifth of a short call.

    Source: PR_SET_TIMERSLACK(2const).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)

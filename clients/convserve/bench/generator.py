"""The loop that makes the load: one thread, all connections, no waiting but for the next event."""

from __future__ import annotations

import ctypes
import select
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convserve.bench.connection import Connection
from convserve.bench.hpack import Field
from convserve.bench.lane import Lane, Links
from convserve.bench.link import Address, Link
from convserve.bench.load import Load
from convserve.bench.outcomes import Ended
from convserve.bench.schedule import Schedule
from convserve.bench.tally import Tally
from convserve.errors import ServerUnavailable

_TICK_S = 0.05
_PR_SET_TIMERSLACK = 29

clock = time.perf_counter

Watch = Callable[[float, Tally], None]
"""Told each tick: seconds since the first call, and what was counted so far."""


@dataclass(frozen=True)
class Calls:
    """What is sent.

    Attributes:
        address: To where.
        fields: Headers of each call.
        messages: Of gRPC, each with its head of 5 bytes; sent in turn.
    """

    address: Address
    fields: Sequence[Field] = field(repr=False)
    messages: Sequence[bytes] = field(repr=False)


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
            watch: Is told each tick.
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
        self._links: Links = {}
        shares = [load.callers // load.connections] * load.connections
        for place in range(load.callers % load.connections):
            shares[place] += 1
        self._lanes = [Lane(share, self._connect, self._links) for share in shares]
        self._connected = 0
        self._begin_s = self._from_s = self._end_s = float("inf")
        self._cpu_from: tuple[float, int] | None = None

    @property
    def lost(self) -> tuple[int, str]:
        """How many connections were lost, and why the last one was; "" if none was."""
        reasons = [lane.reason for lane in self._lanes if lane.reason]
        return sum(lane.lost for lane in self._lanes), reasons[-1] if reasons else ""

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
            for lane in self._lanes:
                lane.close()

    def _open(self) -> None:
        before_s = clock()
        while not all(lane.ready for lane in self._lanes):
            now_s = clock()
            lost, reason = self.lost
            if now_s - before_s > self._load.timeout_s:
                told = f": {reason}" if reason else ""
                raise ServerUnavailable(
                    f"no {self._load.connections} connections within"
                    f" {self._load.timeout_s:g} s{told}"
                )
            for lane in self._lanes:
                lane.repair(now_s)
            self._wait(_TICK_S)

    def _make_calls(self) -> None:
        rate = self._load.rate
        if rate is None:
            for lane in self._lanes:
                lane.begin_many(self._begin_s, lane.callers)
        else:
            _sharpen_timers()
            self.schedule = Schedule(rate, self._begin_s, self._from_s, self._end_s)
        tick_s = self._begin_s
        while True:
            now_s = clock()
            if self.schedule is not None and self.cpu_s is None:
                self.schedule.send(now_s, self._lanes)
            if now_s >= tick_s:
                self._tick(now_s)
                if now_s >= self._end_s and not any(lane.busy for lane in self._lanes):
                    return
                tick_s = min([now_s + _TICK_S, *self._moments_after(now_s)])
            next_s = tick_s
            if self.schedule is not None and now_s < self.schedule.next_s < self._end_s:
                next_s = min(next_s, self.schedule.next_s)
            self._wait(max(0.0, next_s - clock()))

    def _moments_after(self, now_s: float) -> list[float]:
        return [moment for moment in (self._from_s, self._end_s) if moment > now_s]

    def _wait(self, seconds: float) -> None:
        """Waits for the next event, no longer than told, and does what it asks for."""
        links = self._links
        writing = [fd for fd, (_, link) in links.items() if link.writing]
        readable, writable, _ = select.select([*links], writing, (), seconds)
        for fd in writable:
            if fd in links:
                lane, link = links[fd]
                self._take(lane, lane.write(link))
        for fd in readable:
            if fd in links:
                lane, link = links[fd]
                self._take(lane, lane.read(link, clock()))

    def _take(self, lane: Lane, ended: Sequence[Ended]) -> None:
        if not ended:
            return
        now_s = clock()
        self._tally.take(ended, now_s)
        if self.schedule is None and now_s < self._end_s:
            lane.begin_many(now_s, len(ended))

    def _tick(self, now_s: float) -> None:
        if self._cpu_from is None and now_s >= self._from_s:
            self._cpu_from = (time.process_time(), self._tally.seen)
        for lane in self._lanes:
            lane.repair(now_s)
            self._take(lane, lane.expire(now_s, self._load.timeout_s))
        if now_s >= self._end_s:
            self._stop_measuring(now_s)
            self.unsent += sum(lane.give_up_waiting() for lane in self._lanes)
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

    def _connect(self) -> Link:
        self._connected += 1
        return Link(
            self._calls.address,
            Connection(self._calls.fields, self._calls.messages, self._connected),
        )


def _sharpen_timers() -> None:
    """Asks Linux to end waits on time: it is allowed 50 µs otherwise, a fifth of a short call.

    Source: PR_SET_TIMERSLACK(2const).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)

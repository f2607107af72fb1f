"""The batcher under any script of arrivals, cancels, expiries, faults and close."""

import queue
import random
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convserve_server.core import batcher as batcher_module
from convserve_server.core import jobs as jobs_module
from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher
from convserve_server.core.errors import (
    Cancelled,
    DeadlinePassed,
    InternalFault,
    NotReady,
    QueueFull,
    ServeError,
)
from convserve_server.engines.base import Pixels, Probabilities
from tests.server.gated_engine import (
    PATIENCE_S,
    Answered,
    Caller,
    Entered,
    GatedEngine,
    images_of,
    owners,
    rows_of,
)

# Any script of arrivals, cancels, expiries, faults and close


@dataclass(frozen=True)
class Arrive:
    images: int
    #: Ticks until the deadline has passed: 0 on arrival, None never.
    ticks: int | None
    caller: int


@dataclass(frozen=True)
class Cancel:
    which: int


@dataclass(frozen=True)
class Finish:
    """The engine ends its run."""

    fault: bool = False
    missing_rows: int = 0


@dataclass(frozen=True)
class Tick:
    """Time passes: deadlines of one tick more are over."""


@dataclass(frozen=True)
class Close:
    pass


Step = Arrive | Cancel | Finish | Tick | Close

#: Seconds; far longer than a test takes, so that only ticks decide on deadlines.
TICK_S = 10_000.0

ARRIVE = st.builds(
    Arrive, st.integers(1, 9), st.sampled_from([None, None, None, 0, 1, 2]), st.integers(0, 3)
)
CANCEL = st.builds(Cancel, st.integers(0, 40))
FINISH = st.sampled_from([Finish()] * 4 + [Finish(fault=True), Finish(missing_rows=1)])
STEPS = st.lists(
    st.one_of(ARRIVE, ARRIVE, ARRIVE, CANCEL, FINISH, FINISH, st.just(Tick())),
    min_size=8,  # shorter ones hardly meet a busy engine
    max_size=40,
)


@dataclass
class ShiftedClock:
    """Real time, moved on by the script."""

    shift: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.shift


@dataclass
class Sent:
    """An accepted request and what is known of it."""

    request: BatchRequest
    entered: int = 0
    cancelled: bool = False
    hit_by_fault: bool = False
    outcomes: list[Answer | ServeError] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Images that should be in the queue."""
        return 0 if self.outcomes else len(self.request.inputs) - self.entered


class NoTimes(BatchTimes):
    """Learns nothing: a batch that runs while a tick passes has not really needed that long."""

    def note(self, count: int, seconds: float) -> None:
        pass


class Play:
    """Plays a script, and checks each thing that happens when it happens.

    In step: waits after every step until the engine has a batch or all is answered. Then all that
    happens is determined, and the checks are exact.
    """

    def __init__(self, max_batch: int, max_queue: int, max_delay_s: float, in_step: bool) -> None:
        self.max_batch, self.max_queue, self.in_step = max_batch, max_queue, in_step
        self.clock = ShiftedClock()
        self.engine = GatedEngine()
        self.sent: dict[int, Sent] = {}
        self.running: list[Sent] = []
        self.order: list[tuple[int, int]] = []
        self.last: dict[Hashable, tuple[int, int]] = {}
        self.closed = False
        with self.shifted():
            self.batcher = Batcher(
                self.engine.run,
                max_batch=max_batch,
                max_queue=max_queue,
                max_delay_s=max_delay_s,
                times=NoTimes({}),
            )

    @contextmanager
    def shifted(self) -> Iterator[None]:
        with (
            mock.patch.object(batcher_module, "time", self.clock),
            mock.patch.object(jobs_module, "time", self.clock),
        ):
            yield

    def play(self, steps: Sequence[Step]) -> None:
        with self.shifted():
            try:
                for step in steps:
                    self.step(step)
                    if self.in_step:
                        self.settle()
                self.finish_all()
            finally:
                self.batcher.close()
                self.engine.open()
                assert self.batcher.join(PATIENCE_S), "the thread does not end"
        assert self.engine.events.empty()
        assert self.batcher.waiting == 0
        assert all(len(sent.outcomes) == 1 for sent in self.sent.values())

    def step(self, step: Step) -> None:
        match step:
            case Arrive(images, ticks, caller):
                self.arrive(images, ticks, caller)
            case Cancel(which):
                self.cancel(which)
            case Finish(fault, missing_rows):
                self.finish(fault, missing_rows)
            case Tick():
                self.clock.shift += TICK_S
            case Close():
                self.batcher.close()
                self.closed = True

    def arrive(self, images: int, ticks: int | None, caller: int) -> None:
        number = len(self.sent)
        deadline = None
        if ticks is not None:
            deadline = self.clock.monotonic() + (ticks - 0.5) * TICK_S

        def done(outcome: Answer | ServeError) -> None:
            self.engine.events.put(Answered(number, outcome))

        request = BatchRequest(images_of(number, images), deadline, done, caller)
        before = self.batcher.waiting
        too_many = before > 0 and before + images > self.max_queue
        try:
            self.batcher.submit(request)
        except NotReady:
            assert self.closed
            return
        except QueueFull:
            assert too_many
            event("refused")
            return
        assert not self.closed
        # Out of step, the batcher may have freed space meanwhile.
        assert not (self.in_step and too_many)
        assert self.batcher.waiting <= max(self.max_queue, images)
        self.sent[number] = Sent(request)

    def cancel(self, which: int) -> None:
        if not self.sent:
            return
        sent = self.sent[which % len(self.sent)]
        state = (
            "answered"
            if sent.outcomes
            else "queued"
            if not sent.entered
            else "partly run"
            if sent.waiting
            else "in the engine"
        )
        event(f"cancelled {state}")
        sent.cancelled = sent.cancelled or not sent.outcomes
        self.batcher.cancel(sent.request)
        self.take_all()
        if self.in_step and state != "answered":
            # At once, and on the thread that cancels.
            assert isinstance(sent.outcomes[0], Cancelled)

    def finish(self, fault: bool, missing_rows: int) -> None:
        self.settle()
        if not self.running:
            return
        if fault or missing_rows:
            for sent in self.running:
                sent.hit_by_fault = True
        self.running = []
        live = sum(
            sent.waiting
            for sent in self.sent.values()
            if not self.expired(sent) and not sent.hit_by_fault
        )
        batches = len(self.order)
        self.engine.let_go(
            ValueError("the engine broke") if fault else None, missing_rows=missing_rows
        )
        if self.in_step:
            self.settle()
            # It takes all that waits, up to its limit.
            assert len(self.order) - batches == min(live, self.max_batch)

    def finish_all(self) -> None:
        """Let the engine work until all is answered."""
        while self.unanswered():
            self.finish(fault=False, missing_rows=0)
            self.settle()

    def settle(self) -> None:
        """Wait until the engine has a batch, or all is answered."""
        self.take_all()
        while not self.running and self.unanswered():
            try:
                happened = self.engine.events.get(timeout=PATIENCE_S)
            except queue.Empty:
                pytest.fail("requests wait, and nothing happens")
            self.take(happened)
        if self.in_step:
            assert self.batcher.waiting == sum(sent.waiting for sent in self.sent.values())

    def take_all(self) -> None:
        while not self.engine.events.empty():
            self.take(self.engine.events.get())

    def take(self, happened: Entered | Answered) -> None:
        if isinstance(happened, Entered):
            self.take_batch(happened.batch)
        else:
            self.take_outcome(happened.number, happened.outcome)

    def take_batch(self, batch: Pixels) -> None:
        assert not self.running
        assert 1 <= len(batch) <= self.max_batch
        for number, index in owners(batch):
            sent = self.sent[number]
            # Each image once, in its order; requests in the order in which each caller made them.
            assert index == sent.entered
            caller = sent.request.connection
            assert (number, index) > self.last.get(caller, (-1, 0))
            self.last[caller] = (number, index)
            if self.in_step:
                assert not sent.outcomes
                assert not self.expired(sent)
            sent.entered += 1
            self.order.append((number, index))
            if sent not in self.running:
                self.running.append(sent)

    def take_outcome(self, number: int, outcome: Answer | ServeError) -> None:
        sent = self.sent[number]
        assert not sent.outcomes, "answered twice"
        sent.outcomes.append(outcome)
        event(type(outcome).__name__)
        if isinstance(outcome, Answer):
            inputs = sent.request.inputs
            assert isinstance(inputs, np.ndarray)
            assert sent.entered == len(inputs)
            assert not sent.hit_by_fault
            np.testing.assert_array_equal(outcome.rows, rows_of(inputs))
        elif isinstance(outcome, Cancelled):
            assert sent.cancelled
        elif isinstance(outcome, DeadlinePassed):
            assert self.expired(sent)
        else:
            assert isinstance(outcome, InternalFault)
            assert sent.hit_by_fault

    def expired(self, sent: Sent) -> bool:
        deadline = sent.request.deadline
        return deadline is not None and deadline <= self.clock.monotonic()

    def unanswered(self) -> bool:
        return any(not sent.outcomes for sent in self.sent.values())


def with_close(steps: list[Step], at: int | None) -> list[Step]:
    return steps if at is None else [*steps[:at], Close(), *steps[at:]]


CLOSE_AT = st.none() | st.integers(0, 40)


@settings(max_examples=400)
@given(max_batch=st.integers(1, 6), max_queue=st.integers(1, 20), steps=STEPS, close_at=CLOSE_AT)
def test_any_script_in_step_answers_each_exactly_once_with_its_own(
    max_batch: int, max_queue: int, steps: list[Step], close_at: int | None
) -> None:
    play = Play(max_batch, max_queue, max_delay_s=0.0, in_step=True)
    play.play(with_close(steps, close_at))


@settings(max_examples=150)
@given(
    max_batch=st.integers(1, 6),
    max_queue=st.integers(1, 20),
    max_delay_s=st.sampled_from([0.0, 0.0005, 0.002]),
    steps=STEPS,
    close_at=CLOSE_AT,
)
def test_any_script_out_of_step_answers_each_exactly_once_with_its_own(
    max_batch: int,
    max_queue: int,
    max_delay_s: float,
    steps: list[Step],
    close_at: int | None,
) -> None:
    play = Play(max_batch, max_queue, max_delay_s, in_step=False)
    play.play(with_close(steps, close_at))


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("max_delay_s", [0.0, 0.001])
def test_many_threads_each_request_answered_once_with_its_own(
    max_delay_s: float, parallel: int
) -> None:
    """Submits and cancels from several threads while the engine works at full speed."""
    threads, each, bad = 4, 200, 7
    faulty: set[int] = set()

    def run(images: Sequence[Pixels]) -> Probabilities:
        batch: NDArray[np.uint8] = np.concatenate(images)
        numbers = {number for number, _ in owners(batch)}
        if any(number % 50 == bad for number in numbers):
            faulty.update(numbers)
            raise ValueError("broken")
        return rows_of(batch)

    batcher = Batcher(run, max_batch=8, max_queue=24, max_delay_s=max_delay_s, parallel=parallel)
    accepted: dict[int, tuple[Caller, bool]] = {}

    def send(thread: int) -> None:
        choose = random.Random(thread)
        for number in range(thread * each, (thread + 1) * each):
            caller = Caller(number, choose.randint(1, 10))
            try:
                batcher.submit(caller.request)
            except QueueFull:
                continue
            leaves = choose.random() < 0.3
            accepted[number] = (caller, leaves)
            if leaves:
                batcher.cancel(caller.request)
            elif choose.random() < 0.3:
                caller.outcome()

    senders = [threading.Thread(target=send, args=(number,)) for number in range(threads)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(PATIENCE_S)
        assert not sender.is_alive()
    batcher.close()
    assert batcher.join(PATIENCE_S)
    assert batcher.waiting == 0
    assert len(accepted) >= threads
    for number, (caller, left) in accepted.items():
        assert len(caller.outcomes) == 1
        outcome = caller.outcomes[0]
        if isinstance(outcome, Answer):
            assert caller.rows() == caller.own_rows()
            assert number not in faulty
        elif isinstance(outcome, InternalFault):
            assert number in faulty
        else:
            assert isinstance(outcome, Cancelled)
            assert left

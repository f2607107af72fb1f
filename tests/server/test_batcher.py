"""The batcher with engines that wait until the test lets them go."""

import logging
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convserve_server import batcher as batcher_module
from convserve_server.batcher import Answer, Batcher, Pixels, Probabilities, Request
from convserve_server.errors import (
    Cancelled,
    DeadlinePassed,
    InternalFault,
    NotReady,
    QueueFull,
    ServeError,
)

#: How long we wait for what must come; only a failing test ever waits so long.
PATIENCE_S = 20.0


def images_of(number: int, count: int) -> Pixels:
    """Images that say whose they are: uint8 [count, 1, 1, 4], number (two bytes), index, 255."""
    images = np.full((count, 1, 1, 4), 255, np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = divmod(number, 256)
    images[:, 0, 0, 2] = np.arange(count)
    return images


def owners(batch: Pixels) -> list[tuple[int, int]]:
    """(number, index) of each image."""
    return [(int(a) * 256 + int(b), int(c)) for a, b, c, _ in batch.reshape(-1, 4)]


def rows_of(batch: Pixels) -> Probabilities:
    """What our engines make of a batch: float32 [n, 4], the bytes of the image."""
    return batch.reshape(-1, 4).astype(np.float32)


@dataclass
class Entered:
    """The engine was given a batch."""

    batch: Pixels


@dataclass
class Answered:
    """A request was answered."""

    number: int
    outcome: Answer | ServeError


class GatedEngine:
    """Reports each batch to the test and waits for its verdict."""

    def __init__(self) -> None:
        #: Batches and answers, in the order in which they happened.
        self.events: queue.SimpleQueue[Entered | Answered] = queue.SimpleQueue()
        self._verdicts: queue.SimpleQueue[Exception | int] = queue.SimpleQueue()
        self._open = threading.Event()

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        batch = np.concatenate(images)
        self.events.put(Entered(batch))
        if self._open.is_set():
            return rows_of(batch)
        verdict = self._verdicts.get(timeout=PATIENCE_S)
        if isinstance(verdict, Exception):
            raise verdict
        return rows_of(batch)[: len(batch) - verdict]

    def let_go(self, fault: Exception | None = None, *, missing_rows: int = 0) -> None:
        """End one run: with an exception, or with so many rows too few."""
        self._verdicts.put(missing_rows if fault is None else fault)

    def open(self) -> None:
        """Let this run and all later ones go."""
        self._open.set()
        self.let_go()

    def entered(self) -> list[tuple[int, int]]:
        """Whose images the next batch has; waits for it."""
        happened = self.events.get(timeout=PATIENCE_S)
        assert isinstance(happened, Entered), happened
        return owners(happened.batch)


@dataclass
class Clock:
    """Stands in for the module time in the batcher; stands still unless it is told to go on."""

    now: float = 1000.0
    #: Each time that another thread than the test's asked.
    asked: "queue.SimpleQueue[None]" = field(default_factory=queue.SimpleQueue)

    def monotonic(self) -> float:
        if threading.current_thread() is not threading.main_thread():
            self.asked.put(None)
        return self.now


class Caller:
    """Sends one request and keeps its outcomes."""

    def __init__(self, number: int, count: int = 1, deadline: float | None = None) -> None:
        self.outcomes: list[Answer | ServeError] = []
        self._answered = threading.Event()
        self.request = Request(images_of(number, count), deadline, self._done)

    def _done(self, outcome: Answer | ServeError) -> None:
        self.outcomes.append(outcome)
        self._answered.set()

    def outcome(self) -> Answer | ServeError:
        """The outcome; waits for it."""
        assert self._answered.wait(PATIENCE_S), "no answer"
        return self.outcomes[0]

    def answer(self) -> Answer:
        outcome = self.outcome()
        assert isinstance(outcome, Answer), outcome
        return outcome

    def rows(self) -> list[list[float]]:
        rows: list[list[float]] = self.answer().probabilities.tolist()
        return rows

    def own_rows(self) -> list[list[float]]:
        rows: list[list[float]] = rows_of(self.request.pixels).tolist()
        return rows


class Stage:
    """A batcher over a gated engine, and its clean end."""

    def __init__(self) -> None:
        self.engine = GatedEngine()
        self._batchers: list[Batcher] = []

    def batcher(
        self, *, max_batch: int = 4, max_queue: int = 100, max_delay_s: float = 0.0
    ) -> Batcher:
        batcher = Batcher(
            self.engine.run,
            max_batch=max_batch,
            max_queue=max_queue,
            max_delay_s=max_delay_s,
            name="model digits/1",
        )
        self._batchers.append(batcher)
        return batcher

    def submit(self, batcher: Batcher, *callers: Caller) -> None:
        for caller in callers:
            batcher.submit(caller.request)

    def occupy(self, batcher: Batcher) -> Caller:
        """Fill the engine with a request of one image, number 9999."""
        caller = Caller(9999)
        batcher.submit(caller.request)
        assert self.engine.entered() == [(9999, 0)]
        return caller

    def end(self) -> None:
        self.engine.open()
        for batcher in self._batchers:
            batcher.close()
        for batcher in self._batchers:
            assert batcher.join(PATIENCE_S), "the thread does not end"
            assert batcher.waiting == 0


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(batcher_module, "time", clock)
    return clock


# Forming batches


def test_lone_request_idle_engine_runs_at_once(stage: Stage) -> None:
    batcher = stage.batcher()
    caller = Caller(1)
    batcher.submit(caller.request)
    assert stage.engine.entered() == [(1, 0)]
    assert batcher.waiting == 0
    stage.engine.let_go()
    assert caller.rows() == caller.own_rows()


def test_requests_engine_busy_share_the_next_batch(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=8)
    first = stage.occupy(batcher)
    others = [Caller(1, 2), Caller(2), Caller(3, 3)]
    stage.submit(batcher, *others)
    assert batcher.waiting == 6
    stage.engine.let_go()
    assert stage.engine.entered() == [(1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (3, 2)]
    stage.engine.let_go()
    for caller in [first, *others]:
        assert caller.rows() == caller.own_rows()


def test_more_than_max_batch_waits_runs_in_order_in_full_batches(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=3)
    stage.occupy(batcher)
    callers = [Caller(number) for number in range(5)]
    stage.submit(batcher, *callers)
    stage.engine.let_go()
    assert stage.engine.entered() == [(0, 0), (1, 0), (2, 0)]
    stage.engine.let_go()
    assert stage.engine.entered() == [(3, 0), (4, 0)]
    stage.engine.let_go()
    for caller in callers:
        assert caller.rows() == caller.own_rows()


def test_request_over_max_batch_is_split_and_put_together(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=3)
    large, small = Caller(1, 7), Caller(2)
    stage.occupy(batcher)
    stage.submit(batcher, large, small)
    stage.engine.let_go()
    for expected in ([(1, 0), (1, 1), (1, 2)], [(1, 3), (1, 4), (1, 5)], [(1, 6), (2, 0)]):
        assert large.outcomes == []
        assert stage.engine.entered() == expected
        stage.engine.let_go()
    assert large.rows() == large.own_rows()
    assert small.rows() == small.own_rows()


def test_answer_says_time_in_queue_and_engine(stage: Stage, clock: Clock) -> None:
    batcher = stage.batcher(max_batch=3)
    stage.occupy(batcher)
    clock.now += 5
    caller = Caller(1, 4)
    batcher.submit(caller.request)
    clock.now += 2
    stage.engine.let_go()
    for _ in range(2):
        stage.engine.entered()
        clock.now += 10
        stage.engine.let_go()
    answer = caller.answer()
    # The second batch began 2 s in the queue and 10 s of the first one after the arrival.
    assert answer.queue_s == pytest.approx(12)
    assert answer.compute_s == pytest.approx(20)


# The bound


def test_full_queue_refuses_at_once_with_numbers(stage: Stage) -> None:
    batcher = stage.batcher(max_queue=4)
    stage.occupy(batcher)
    waiting, refused = Caller(1, 3), Caller(2, 2)
    batcher.submit(waiting.request)
    with pytest.raises(QueueFull) as caught:
        batcher.submit(refused.request)
    assert str(caught.value) == (
        "the queue of model digits/1 is full: 3 images wait, 2 more exceed the limit of 4"
    )
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0
    assert batcher.waiting == 3
    # What fits is still taken, and the refused one is never run.
    fitting = Caller(3)
    batcher.submit(fitting.request)
    stage.engine.let_go()
    assert stage.engine.entered() == [(1, 0), (1, 1), (1, 2), (3, 0)]
    stage.engine.let_go()
    fitting.answer()
    assert refused.outcomes == []


def test_full_queue_hint_is_the_time_its_images_take(stage: Stage, clock: Clock) -> None:
    batcher = stage.batcher(max_batch=4, max_queue=3)
    for _ in range(100):
        caller = Caller(1, 4)
        batcher.submit(caller.request)
        stage.engine.entered()
        clock.now += 4 * 2
        stage.engine.let_go()
        caller.answer()
    stage.occupy(batcher)
    batcher.submit(Caller(1, 3).request)
    with pytest.raises(QueueFull) as caught:
        batcher.submit(Caller(2).request)
    assert caught.value.retry_after_s == pytest.approx(3 * 2, rel=0.01)


def test_request_over_max_queue_is_taken_by_an_empty_queue_alone(stage: Stage) -> None:
    batcher = stage.batcher(max_queue=2)
    stage.occupy(batcher)
    large = Caller(1, 4)
    batcher.submit(large.request)
    with pytest.raises(QueueFull):
        batcher.submit(Caller(2).request)
    stage.engine.let_go()
    assert len(stage.engine.entered()) == 4
    stage.engine.let_go()
    assert large.rows() == large.own_rows()


def test_cancelled_request_in_full_queue_frees_its_place(stage: Stage) -> None:
    batcher = stage.batcher(max_queue=3)
    stage.occupy(batcher)
    leaves, comes = Caller(1, 3), Caller(2, 3)
    batcher.submit(leaves.request)
    batcher.cancel(leaves.request)
    assert batcher.waiting == 0
    batcher.submit(comes.request)
    stage.engine.let_go()
    assert stage.engine.entered() == [(2, 0), (2, 1), (2, 2)]
    stage.engine.let_go()
    assert comes.rows() == comes.own_rows()


def test_taken_images_of_a_split_request_free_their_places(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2, max_queue=4)
    stage.occupy(batcher)
    batcher.submit(Caller(1, 4).request)
    stage.engine.let_go()
    stage.engine.entered()
    assert batcher.waiting == 2
    batcher.submit(Caller(2, 2).request)
    assert batcher.waiting == 4


# Deadlines


def test_expired_request_in_queue_never_reaches_the_engine(stage: Stage, clock: Clock) -> None:
    batcher = stage.batcher()
    stage.occupy(batcher)
    expired = Caller(1, 2, deadline=clock.now + 5)
    live = Caller(2, 1, deadline=clock.now + 50)
    patient = Caller(3)
    stage.submit(batcher, expired, live, patient)
    clock.now += 10
    stage.engine.let_go()
    assert stage.engine.entered() == [(2, 0), (3, 0)]
    assert isinstance(expired.outcome(), DeadlinePassed)
    stage.engine.let_go()
    assert live.rows() == live.own_rows()
    assert patient.rows() == patient.own_rows()


def test_request_expired_on_arrival_is_answered_by_an_idle_engine(
    stage: Stage, clock: Clock
) -> None:
    batcher = stage.batcher()
    caller = Caller(1, deadline=clock.now)
    batcher.submit(caller.request)
    assert isinstance(caller.outcome(), DeadlinePassed)
    stage.occupy(batcher)


def test_deadline_passing_in_the_engine_still_gets_the_rows(stage: Stage, clock: Clock) -> None:
    batcher = stage.batcher()
    caller = Caller(1, deadline=clock.now + 5)
    batcher.submit(caller.request)
    stage.engine.entered()
    clock.now += 10
    stage.engine.let_go()
    assert caller.rows() == caller.own_rows()


def test_deadline_passing_partly_run_drops_the_rest(stage: Stage, clock: Clock) -> None:
    batcher = stage.batcher(max_batch=2)
    split, next_ = Caller(1, 5, deadline=clock.now + 5), Caller(2)
    batcher.submit(split.request)
    assert stage.engine.entered() == [(1, 0), (1, 1)]
    batcher.submit(next_.request)
    clock.now += 10
    stage.engine.let_go()
    assert stage.engine.entered() == [(2, 0)]
    assert isinstance(split.outcome(), DeadlinePassed)
    assert batcher.waiting == 0
    stage.engine.let_go()
    assert next_.rows() == next_.own_rows()


# Cancelling


def test_cancel_queued_request_never_reaches_the_engine(stage: Stage) -> None:
    batcher = stage.batcher()
    stage.occupy(batcher)
    gone, stays = Caller(1, 2), Caller(2)
    stage.submit(batcher, gone, stays)
    batcher.cancel(gone.request)
    assert [type(outcome) for outcome in gone.outcomes] == [Cancelled]
    assert batcher.waiting == 1
    stage.engine.let_go()
    assert stage.engine.entered() == [(2, 0)]


def test_cancel_partly_run_request_drops_the_rest(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2)
    gone, stays = Caller(1, 5), Caller(2)
    batcher.submit(gone.request)
    assert stage.engine.entered() == [(1, 0), (1, 1)]
    batcher.submit(stays.request)
    batcher.cancel(gone.request)
    assert batcher.waiting == 1
    stage.engine.let_go()
    assert stage.engine.entered() == [(2, 0)]
    stage.engine.let_go()
    assert stays.rows() == stays.own_rows()
    assert [type(outcome) for outcome in gone.outcomes] == [Cancelled]


def test_cancel_request_in_the_engine_leaves_its_batch_alone(stage: Stage) -> None:
    batcher = stage.batcher()
    stage.occupy(batcher)
    before, gone, after = Caller(1), Caller(2, 2), Caller(3)
    stage.submit(batcher, before, gone, after)
    stage.engine.let_go()
    assert len(stage.engine.entered()) == 4
    batcher.cancel(gone.request)
    stage.engine.let_go()
    assert before.rows() == before.own_rows()
    assert after.rows() == after.own_rows()
    assert [type(outcome) for outcome in gone.outcomes] == [Cancelled]
    assert batcher.waiting == 0


def test_cancel_answered_request_changes_nothing(stage: Stage) -> None:
    batcher = stage.batcher()
    caller = stage.occupy(batcher)
    stage.engine.let_go()
    caller.answer()
    batcher.cancel(caller.request)
    assert len(caller.outcomes) == 1
    assert batcher.waiting == 0


def test_cancel_twice_answers_once(stage: Stage) -> None:
    batcher = stage.batcher()
    stage.occupy(batcher)
    caller = Caller(1, 2)
    batcher.submit(caller.request)
    batcher.cancel(caller.request)
    batcher.cancel(caller.request)
    assert len(caller.outcomes) == 1
    assert batcher.waiting == 0


def test_cancel_with_reason_answers_with_it(stage: Stage) -> None:
    batcher = stage.batcher()
    stage.occupy(batcher)
    caller, reason = Caller(1), NotReady("going down")
    batcher.submit(caller.request)
    batcher.cancel(caller.request, reason)
    assert caller.outcomes == [reason]


# Faults


def test_engine_fault_fails_its_batch_alone(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    batcher = stage.batcher(max_batch=2)
    before = stage.occupy(batcher)
    hit = [Caller(1), Caller(2)]
    after = Caller(3)
    stage.submit(batcher, *hit, after)
    stage.engine.let_go()
    assert stage.engine.entered() == [(1, 0), (2, 0)]
    stage.engine.let_go(ValueError("the driver is gone"))
    assert stage.engine.entered() == [(3, 0)]
    stage.engine.let_go()
    assert before.rows() == before.own_rows()
    assert after.rows() == after.own_rows()
    for caller in hit:
        fault = caller.outcome()
        assert isinstance(fault, InternalFault)
        assert fault.id in str(fault)
        assert "the driver is gone" not in str(fault)
        assert f"model digits/1 failed, id {fault.id}" in caplog.text
    assert "ValueError: the driver is gone" in caplog.text


def test_engine_fault_in_a_split_request_drops_the_rest(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2)
    split, next_ = Caller(1, 6), Caller(2)
    stage.submit(batcher, split)
    stage.engine.entered()
    batcher.submit(next_.request)
    stage.engine.let_go()
    assert stage.engine.entered() == [(1, 2), (1, 3)]
    stage.engine.let_go(ValueError("broken"))
    assert stage.engine.entered() == [(2, 0)]
    assert [type(outcome) for outcome in split.outcomes] == [InternalFault]
    assert batcher.waiting == 0
    stage.engine.let_go()
    assert next_.rows() == next_.own_rows()


@pytest.mark.parametrize("missing", [1, -1])
def test_wrong_row_count_is_internal_with_an_id_in_the_log(
    missing: int, caplog: pytest.LogCaptureFixture
) -> None:
    def run(images: Sequence[Pixels]) -> Probabilities:
        count = sum(len(piece) for piece in images)
        return np.zeros((count - missing, 4), np.float32)

    batcher = Batcher(run, max_batch=4, max_queue=4)
    caller = Caller(1, 3)
    batcher.submit(caller.request)
    fault = caller.outcome()
    assert isinstance(fault, InternalFault)
    assert fault.id in caplog.text
    assert f"the engine gave {3 - missing} rows for 3 images" in caplog.text
    batcher.close()
    assert batcher.join(PATIENCE_S)


def test_rows_of_different_width_are_internal_and_the_thread_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    widths = iter([4, 5, 4])

    def run(images: Sequence[Pixels]) -> Probabilities:
        return np.zeros((sum(len(piece) for piece in images), next(widths)), np.float32)

    batcher = Batcher(run, max_batch=2, max_queue=4)
    split, next_ = Caller(1, 4), Caller(2)
    batcher.submit(split.request)
    fault = split.outcome()
    assert isinstance(fault, InternalFault)
    assert fault.id in caplog.text
    batcher.submit(next_.request)
    assert next_.answer().probabilities.shape == (1, 4)
    batcher.close()
    assert batcher.join(PATIENCE_S)


@pytest.mark.parametrize("how", ["answer", "fault", "expiry", "cancel"])
def test_done_that_raises_does_not_take_the_thread(
    stage: Stage, clock: Clock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = stage.batcher()
    called: list[Answer | ServeError] = []

    def done(outcome: Answer | ServeError) -> None:
        called.append(outcome)
        raise OSError("the caller's own fault")

    stage.occupy(batcher)
    deadline = clock.now + 5 if how == "expiry" else None
    bad = Request(images_of(1, 1), deadline, done)
    good = Caller(2)
    batcher.submit(bad)
    batcher.submit(good.request)
    if how == "cancel":
        batcher.cancel(bad)
    clock.now += 10
    stage.engine.let_go()
    stage.engine.entered()
    stage.engine.let_go(ValueError("broken") if how == "fault" else None)
    good.outcome()
    last = Caller(3)
    batcher.submit(last.request)
    assert stage.engine.entered() == [(3, 0)]
    stage.engine.let_go()
    assert last.rows() == last.own_rows()
    kinds = {"answer": Answer, "fault": InternalFault}
    expected = {**kinds, "expiry": DeadlinePassed, "cancel": Cancelled}[how]
    assert [type(outcome) for outcome in called] == [expected]
    assert "OSError: the caller's own fault" in caplog.text
    assert [r.levelno for r in caplog.records if r.message == "answering a request failed"] == [
        logging.ERROR
    ]


# Closing


def test_close_answers_what_was_accepted_and_refuses_more(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2)
    callers = [stage.occupy(batcher), Caller(1, 3), Caller(2)]
    stage.submit(batcher, *callers[1:])
    batcher.close()
    with pytest.raises(NotReady, match="model digits/1 is being unloaded") as caught:
        batcher.submit(Caller(3).request)
    assert caught.value.retry_after_s
    assert not batcher.join(0)
    stage.engine.open()
    for caller in callers:
        assert caller.rows() == caller.own_rows()
    assert batcher.join(PATIENCE_S)


def test_close_idle_twice_ends_the_thread(stage: Stage) -> None:
    batcher = stage.batcher()
    batcher.close()
    batcher.close()
    assert batcher.join(PATIENCE_S)


def test_close_with_only_cancelled_and_expired_requests_ends_the_thread(
    stage: Stage, clock: Clock
) -> None:
    batcher = stage.batcher()
    first = stage.occupy(batcher)
    cancelled, expired = Caller(1, 2), Caller(2, 2, deadline=clock.now)
    stage.submit(batcher, cancelled, expired)
    batcher.cancel(cancelled.request)
    batcher.close()
    stage.engine.let_go()
    assert batcher.join(PATIENCE_S)
    assert first.rows() == first.own_rows()
    assert isinstance(expired.outcome(), DeadlinePassed)


# Waiting for company


def test_max_delay_full_batch_does_not_wait(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=3, max_delay_s=3600)
    for number in range(20):
        # An eager batcher would take the first request alone.
        callers = [Caller(3 * number), Caller(3 * number + 1), Caller(3 * number + 2)]
        stage.submit(batcher, *callers)
        assert stage.engine.entered() == [(3 * number + i, 0) for i in range(3)]
        stage.engine.let_go()
        for caller in callers:
            assert caller.rows() == caller.own_rows()


def test_max_delay_lone_request_runs_after_it(stage: Stage) -> None:
    batcher = stage.batcher(max_delay_s=0.02)
    caller = Caller(1)
    batcher.submit(caller.request)
    assert stage.engine.entered() == [(1, 0)]
    stage.engine.let_go()
    assert caller.answer().queue_s >= 0.02


def test_max_delay_counts_from_the_oldest_that_still_waits(stage: Stage, clock: Clock) -> None:
    batcher = stage.batcher(max_delay_s=3600)

    def submit(caller: Caller) -> None:
        """Submit, and see the batcher's thread ask for the time twice: to decide, and to wait."""
        stage.submit(batcher, caller)
        for _ in range(2):
            clock.asked.get(timeout=PATIENCE_S)

    gone = Caller(1)
    submit(gone)
    clock.now += 3000
    submit(Caller(2))
    batcher.cancel(gone.request)
    # The delay of the one that left is over; that of the other is not.
    clock.now += 1000
    submit(Caller(3))
    assert batcher.waiting == 2
    # Now it is.
    clock.now += 2600
    stage.submit(batcher, Caller(4))
    assert stage.engine.entered() == [(2, 0), (3, 0), (4, 0)]


def test_max_delay_close_runs_what_waits_at_once(stage: Stage) -> None:
    batcher = stage.batcher(max_delay_s=3600)
    caller = Caller(1)
    batcher.submit(caller.request)
    batcher.close()
    assert stage.engine.entered() == [(1, 0)]
    stage.engine.let_go()
    assert caller.rows() == caller.own_rows()
    assert batcher.join(PATIENCE_S)


# Any script of arrivals, cancels, expiries, faults and close


@dataclass(frozen=True)
class Arrive:
    images: int
    #: Ticks until the deadline has passed: 0 on arrival, None never.
    ticks: int | None


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

ARRIVE = st.builds(Arrive, st.integers(1, 9), st.sampled_from([None, None, None, 0, 1, 2]))
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

    request: Request
    entered: int = 0
    cancelled: bool = False
    hit_by_fault: bool = False
    outcomes: list[Answer | ServeError] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Images that should be in the queue."""
        return 0 if self.outcomes else len(self.request.pixels) - self.entered


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
        self.closed = False
        with mock.patch.object(batcher_module, "time", self.clock):
            self.batcher = Batcher(
                self.engine.run,
                max_batch=max_batch,
                max_queue=max_queue,
                max_delay_s=max_delay_s,
            )

    def play(self, steps: Sequence[Step]) -> None:
        with mock.patch.object(batcher_module, "time", self.clock):
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
            case Arrive(images, ticks):
                self.arrive(images, ticks)
            case Cancel(which):
                self.cancel(which)
            case Finish(fault, missing_rows):
                self.finish(fault, missing_rows)
            case Tick():
                self.clock.shift += TICK_S
            case Close():
                self.batcher.close()
                self.closed = True

    def arrive(self, images: int, ticks: int | None) -> None:
        number = len(self.sent)
        deadline = None
        if ticks is not None:
            deadline = self.clock.monotonic() + (ticks - 0.5) * TICK_S

        def done(outcome: Answer | ServeError) -> None:
            self.engine.events.put(Answered(number, outcome))

        request = Request(images_of(number, images), deadline, done)
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
        # Out of step, the batcher may have made room meanwhile.
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
            # Each image once, in its order, and callers in the order of their arrival.
            assert index == sent.entered
            assert not self.order or (number, index) > self.order[-1]
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
            assert sent.entered == len(sent.request.pixels)
            assert not sent.hit_by_fault
            np.testing.assert_array_equal(outcome.probabilities, rows_of(sent.request.pixels))
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


@settings(max_examples=400, deadline=None)
@given(max_batch=st.integers(1, 6), max_queue=st.integers(1, 20), steps=STEPS, close_at=CLOSE_AT)
def test_any_script_in_step_answers_each_exactly_once_with_its_own(
    max_batch: int, max_queue: int, steps: list[Step], close_at: int | None
) -> None:
    play = Play(max_batch, max_queue, max_delay_s=0.0, in_step=True)
    play.play(with_close(steps, close_at))


@settings(max_examples=150, deadline=None)
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


@pytest.mark.parametrize("max_delay_s", [0.0, 0.001])
def test_many_threads_each_request_answered_once_with_its_own(max_delay_s: float) -> None:
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

    batcher = Batcher(run, max_batch=8, max_queue=24, max_delay_s=max_delay_s)
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

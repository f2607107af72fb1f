"""The batcher with engines that wait until the test lets them go."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from convserve_server.core import batcher as batcher_module
from convserve_server.core import jobs as jobs_module
from convserve_server.core.batch_request import Answer, BatchRequest
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
    Caller,
    Clock,
    Stage,
    images_of,
)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (batcher_module, jobs_module):
        monkeypatch.setattr(module, "time", clock)
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


def test_cancelled_request_in_full_queue_frees_its_space(stage: Stage) -> None:
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


def test_running_images_of_a_split_request_free_their_space(stage: Stage) -> None:
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
    assert f"the engine gave {3 - missing} rows for 3" in caplog.text
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
    assert next_.answer().rows.shape == (1, 4)
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
    bad = BatchRequest(images_of(1, 1), deadline, done)
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
    assert [r.levelno for r in caplog.records if r.message == "answering a call failed"] == [
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


# Waiting for other requests


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
        """Submit, and see the batcher's thread ask for the time: to decide how long to wait."""
        stage.submit(batcher, caller)
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

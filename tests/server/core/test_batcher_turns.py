"""Callers share batches equally where more waits than a batch holds; batches in flight together."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.server.gated_engine import PATIENCE_S, Caller, Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


def numbers(batch: list[tuple[int, int]]) -> list[int]:
    return [number for number, _ in batch]


def test_single_image_is_in_the_next_batch_however_much_another_caller_sent(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=4)
    stage.occupy(batcher)
    much = [Caller(number, 10, name="much") for number in range(3)]
    stage.submit(batcher, *much, Caller(7, name="little"))
    stage.engine.let_go()
    assert numbers(stage.engine.entered()) == [0, 0, 0, 7]


def test_callers_who_send_as_much_as_each_other_have_equal_shares(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=6)
    stage.occupy(batcher)
    callers = [Caller(number, 12, name=f"caller {number}") for number in range(3)]
    stage.submit(batcher, *callers)
    for _ in range(6):
        stage.engine.let_go()
        assert Counter(numbers(stage.engine.entered())) == {0: 2, 1: 2, 2: 2}
    stage.engine.let_go()
    for caller in callers:
        assert caller.rows() == caller.own_rows()


def test_share_that_one_leaves_goes_to_the_others_in_one_piece(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=6)
    stage.occupy(batcher)
    stage.submit(batcher, Caller(0, 9, name="much"), Caller(1, 1, name="little"))
    stage.engine.let_go()
    assert stage.engine.entered() == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]


def test_more_callers_than_a_batch_holds_have_their_turns_in_a_circle(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2)
    stage.occupy(batcher)
    stage.submit(batcher, *[Caller(number, 2, name=f"caller {number}") for number in range(5)])
    batches = []
    for _ in range(5):
        stage.engine.let_go()
        batches.append(numbers(stage.engine.entered()))
    assert batches == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]


def test_caller_who_sends_again_and_again_waits_for_the_turns_of_others(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2)
    stage.occupy(batcher)
    stage.submit(batcher, Caller(0, 8, name="much"), Caller(1, name="often"))
    stage.engine.let_go()
    assert numbers(stage.engine.entered()) == [0, 1]
    stage.submit(batcher, *[Caller(number, name="often") for number in (2, 3, 4)])
    seen = []
    for _ in range(3):
        stage.engine.let_go()
        seen.append(numbers(stage.engine.entered()))
    assert seen == [[0, 2], [0, 3], [0, 4]]


def test_cancelled_and_answered_requests_cost_nobody_a_turn(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=3)
    stage.occupy(batcher)
    gone = Caller(0, 5, name="gone")
    stage.submit(batcher, gone, Caller(1, 4, name="a"), Caller(2, 4, name="b"))
    batcher.cancel(gone.request)
    stage.engine.let_go()
    # Three had items when the shares were made; what is left over goes to the first in turn.
    assert Counter(numbers(stage.engine.entered())) == {1: 2, 2: 1}


def test_engine_that_takes_two_batches_at_once_has_two_and_no_more(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2, parallel=2)
    callers = [Caller(number) for number in range(6)]
    stage.submit(batcher, callers[0])
    assert numbers(stage.engine.entered()) == [0]
    stage.submit(batcher, callers[1])
    assert numbers(stage.engine.entered()) == [1]
    stage.submit(batcher, *callers[2:])
    assert batcher.waiting == 4
    stage.engine.let_go()
    assert len(stage.engine.entered()) == 2
    assert batcher.waiting == 2
    stage.engine.let_go()
    stage.engine.open()
    for caller in callers:
        assert caller.rows() == caller.own_rows()


def test_more_than_a_batch_that_comes_at_once_wakes_all_threads(stage: Stage) -> None:
    batcher = stage.batcher(max_batch=2, parallel=2)
    stage.submit(batcher, Caller(0, 4))
    assert sorted(stage.engine.entered() + stage.engine.entered()) == [(0, n) for n in range(4)]


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_close_answers_what_was_accepted_and_ends_all_threads(stage: Stage, parallel: int) -> None:
    batcher = stage.batcher(max_batch=2, parallel=parallel)
    callers = [Caller(number, 3) for number in range(4)]
    stage.submit(batcher, *callers)
    batcher.close()
    stage.engine.open()
    for caller in callers:
        assert caller.rows() == caller.own_rows()
    assert batcher.join(PATIENCE_S)

"""Under any load the engine works for calls that are answered in time, and shares are kept.

Together these play a million steps. Goodput is what is answered in time, as part of what the engine
could compute in the same time with full batches.
"""

import random

import pytest

from convserve_server.core.jobs import Priority
from tests.server.core.overload_simulation import WHOLE_S, Simulation, Source, batch_s

STEPS = 20_000
NEARLY_ALL = 0.95
#: Of the images that are not answered, those that are refused at the door; others wait in vain.
MOSTLY = 0.75


@pytest.mark.parametrize("batches", [10, 30])
@pytest.mark.parametrize("load", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("connections", [1, 4])
def test_goodput_is_all_that_the_engine_can_do(load: float, batches: int, connections: int) -> None:
    sources = [Source(load / connections, batches * WHOLE_S)] * connections
    played = Simulation(sources).play(STEPS)
    assert played.goodput() >= NEARLY_ALL
    assert sum(tally.late for tally in played.tallies) == 0
    refused = sum(tally.refused for tally in played.tallies)
    assert refused >= MOSTLY * (refused + sum(tally.dropped for tally in played.tallies))
    assert played.early >= NEARLY_ALL * refused


@pytest.mark.parametrize("load", [1.5, 5.0])
@pytest.mark.parametrize("batches", [1.2, 2.0])
def test_goodput_stays_even_with_deadlines_of_hardly_more_than_a_batch(
    load: float, batches: float
) -> None:
    assert Simulation([Source(load / 4, batches * WHOLE_S)] * 4).play(STEPS).goodput() >= 0.9


@pytest.mark.parametrize(("batches", "images"), [(2, 1), (10, 1), (30, 1), (20, 16)])
@pytest.mark.parametrize("parallel", [1, 2])
def test_nobody_is_refused_at_half_of_the_load(batches: int, parallel: int, images: int) -> None:
    sources = [Source(0.25, batches * WHOLE_S, images)] * 2
    played = Simulation(sources, parallel=parallel).play(STEPS)
    for tally in played.tallies:
        assert tally.refused == tally.dropped == tally.late == 0


@pytest.mark.parametrize("load", [1.5, 5.0])
def test_what_waits_leaves_time_for_stalls_of_the_machine(load: float) -> None:
    played = Simulation([Source(load, 10 * WHOLE_S)]).play(STEPS)
    assert played.goodput() >= NEARLY_ALL
    # The batch that runs, and half of what the deadline leaves beside it and its own batch.
    assert 4 * WHOLE_S < played.longest_wait_s <= 5.5 * WHOLE_S


@pytest.mark.parametrize("load", [1.5, 3.0])
def test_engine_that_runs_two_batches_at_once_does_all_that_it_can(load: float) -> None:
    assert Simulation([Source(load / 2)] * 2, parallel=2).play(STEPS).goodput() >= NEARLY_ALL


def test_connections_that_ask_for_less_than_their_share_have_it_and_others_the_rest() -> None:
    played = Simulation([Source(0.1), Source(0.25), Source(1.0), Source(3.0)]).play(2 * STEPS)
    assert played.goodput() >= NEARLY_ALL
    for number in (0, 1):
        assert played.tallies[number].good >= 0.99 * played.tallies[number].sent
    # What those two leave, in halves, however much more one of them sends.
    for number in (2, 3):
        assert played.goodput(number) >= NEARLY_ALL * 0.325


def test_calls_of_many_images_have_no_more_and_no_less_than_their_share() -> None:
    sources = [Source(1.0), Source(1.0, 30 * WHOLE_S, 4), Source(1.0, 30 * WHOLE_S, 16)]
    played = Simulation(sources).play(2 * STEPS)
    assert played.goodput() >= NEARLY_ALL
    for number in range(3):
        assert played.goodput(number) >= NEARLY_ALL / 3


@pytest.mark.parametrize("deadline_s", [10 * WHOLE_S, 2.0])
def test_batch_calls_have_their_share_while_interactive_ones_would_use_all(
    deadline_s: float,
) -> None:
    batch = Source(1.5, deadline_s, priority=Priority.BATCH)
    played = Simulation([Source(1.5), batch], batch_share=0.2).play(2 * STEPS)
    assert played.goodput() >= NEARLY_ALL
    assert played.goodput(1) >= NEARLY_ALL * 0.2


def test_interactive_calls_have_all_but_the_share_of_the_others() -> None:
    batch = Source(5.0, priority=Priority.BATCH)
    played = Simulation([Source(1.5), batch], batch_share=0.2).play(2 * STEPS)
    assert played.goodput(0) >= NEARLY_ALL * 0.8


def test_batch_calls_use_what_interactive_ones_leave_and_disturb_none_of_them() -> None:
    batch = Source(3.0, priority=Priority.BATCH)
    played = Simulation([Source(0.25), Source(0.25), batch], batch_share=0.2).play(2 * STEPS)
    assert played.goodput(2) >= NEARLY_ALL * 0.5
    for tally in played.tallies[:2]:
        assert tally.refused == tally.dropped == tally.late == 0


def test_both_classes_share_equally_between_their_connections() -> None:
    batch = [Source(0.5, priority=Priority.BATCH), Source(1.5, priority=Priority.BATCH)]
    played = Simulation([Source(0.5), Source(1.5), *batch], batch_share=0.4).play(2 * STEPS)
    for number in range(2):
        assert played.goodput(number) >= NEARLY_ALL * 0.3
    for number in range(2, 4):
        assert played.goodput(number) >= NEARLY_ALL * 0.2


@pytest.mark.parametrize("load", [1.5, 5.0])
def test_calls_without_a_deadline_wait_no_longer_than_max_wait(load: float) -> None:
    sources = [Source(load / 2, None)] * 2
    played = Simulation(sources, max_wait_s=10 * WHOLE_S).play(STEPS)
    assert played.goodput() >= NEARLY_ALL
    assert played.longest_wait_s <= 10 * WHOLE_S + 1e-6


def test_shorter_of_deadline_and_max_wait_counts() -> None:
    sources = [Source(1.5, 100 * WHOLE_S)]
    played = Simulation(sources, max_wait_s=5 * WHOLE_S).play(STEPS)
    assert played.longest_wait_s <= 5 * WHOLE_S + 1e-6
    assert played.goodput() >= NEARLY_ALL


def test_engine_that_is_four_times_slower_for_seconds_goes_on_with_what_it_can() -> None:
    def slow_every_other(now: float) -> float:
        return 4.0 if now // 3 % 2 else 1.0

    played = Simulation([Source(1.0, 40 * WHOLE_S)] * 3, slow_every_other).play(3 * STEPS)
    assert played.goodput() >= NEARLY_ALL
    assert sum(t.late for t in played.tallies) <= 0.01 * sum(t.sent for t in played.tallies)


def test_single_batches_that_take_long_cost_no_more_than_themselves() -> None:
    choose = random.Random(7)

    def outlier(now: float) -> float:
        return 20.0 if choose.random() < 0.005 else 1.0

    played = Simulation([Source(1.0, 10 * WHOLE_S)] * 3, outlier).play(2 * STEPS)
    assert played.goodput() >= NEARLY_ALL


def test_single_batches_that_take_long_get_nobody_refused_at_half_of_the_load() -> None:
    choose = random.Random(7)

    def outlier(now: float) -> float:
        return 5.0 if choose.random() < 0.002 else 1.0

    played = Simulation([Source(0.5, 20 * WHOLE_S)], outlier).play(STEPS)
    assert played.tallies[0].good >= 0.999 * played.tallies[0].sent


@pytest.mark.parametrize(
    "measured", [{}, {1: 1e-5, 16: 1e-4}, {1: 10 * WHOLE_S}], ids=["none", "low", "high"]
)
def test_times_that_are_not_known_or_wrong_are_learnt(measured: dict[int, float]) -> None:
    played = Simulation([Source(1.0)] * 3, measured=measured).play(2 * STEPS)
    assert played.goodput() >= NEARLY_ALL
    assert sum(t.late for t in played.tallies) <= 0.01 * sum(t.sent for t in played.tallies)


def test_times_that_are_far_too_long_do_not_close_the_server() -> None:
    measured = {1: 1000 * batch_s(1), 16: 1000 * WHOLE_S}
    played = Simulation([Source(0.3)], measured=measured).play(STEPS)
    first = played.tallies[0].refused
    assert played.play(STEPS).tallies[0].refused == first

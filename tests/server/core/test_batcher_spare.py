"""Batches on the CPUs of other workers, while the engine is busy and theirs are idle."""

import os
from collections.abc import Iterator

import pytest

from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher
from convserve_server.core.errors import InternalFault
from convserve_server.host.engine_activity import EngineActivity, create
from convserve_server.host.spare_cpus import SpareCpus
from tests.server.gated_engine import PATIENCE_S, Caller, Stage

#: A batch of four is worth another CPU, and so are two images.
SLOW = {1: 0.00025, 2: 0.0005, 4: 0.001}
NOWHERE: frozenset[int] = frozenset()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


@pytest.fixture
def workers() -> Iterator[list[EngineActivity]]:
    descriptor = create(2)
    yield [EngineActivity(descriptor, index) for index in range(2)]
    os.close(descriptor)


@pytest.fixture
def batcher(stage: Stage, workers: list[EngineActivity]) -> Batcher:
    return stage.batcher(spare=SpareCpus(workers[0], NOWHERE, 2), times=BatchTimes(SLOW))


def test_what_waits_runs_on_a_spare_cpu_while_the_engine_is_busy(
    stage: Stage, batcher: Batcher
) -> None:
    first = stage.occupy(batcher)
    others = [Caller(1), Caller(2)]
    stage.submit(batcher, *others)
    assert stage.engine.entered() == [(1, 0), (2, 0)]
    # A third batch has no CPU.
    stage.submit(batcher, Caller(3, 4))
    assert batcher.waiting == 4
    stage.engine.open()
    for caller in (first, *others):
        assert caller.rows() == caller.own_rows()


def test_what_waits_behind_a_full_batch_runs_on_a_spare_cpu(stage: Stage, batcher: Batcher) -> None:
    first = stage.occupy(batcher)
    many = Caller(1, 12)
    stage.submit(batcher, many)
    entered = stage.engine.entered()
    # The engine's own thread and the other one share the rest.
    stage.engine.open()
    assert entered == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert many.rows() == many.own_rows()
    assert first.rows() == first.own_rows()


def test_little_work_waits_for_the_engine(stage: Stage, batcher: Batcher) -> None:
    stage.occupy(batcher)
    one = Caller(1)
    stage.submit(batcher, one)
    assert batcher.waiting == 1
    stage.engine.let_go()
    assert stage.engine.entered() == [(1, 0)]
    stage.engine.let_go()
    assert one.rows() == one.own_rows()


def test_beside_busy_engines_batches_are_as_large_as_without(
    stage: Stage, batcher: Batcher, workers: list[EngineActivity]
) -> None:
    workers[1].begin()
    stage.occupy(batcher)
    callers = [Caller(number, 2) for number in (1, 2)]
    stage.submit(batcher, *callers)
    assert batcher.waiting == 4
    # It is asked again when the next batch is formed, not at each request.
    workers[1].end()
    stage.engine.let_go()
    assert stage.engine.entered() == [(1, 0), (1, 1), (2, 0), (2, 1)]
    stage.engine.let_go()
    for caller in callers:
        assert caller.rows() == caller.own_rows()


def test_requests_that_may_wait_for_a_fuller_batch_have_no_spare_cpu(
    stage: Stage, workers: list[EngineActivity]
) -> None:
    spare = SpareCpus(workers[0], NOWHERE, 2)
    batcher = stage.batcher(spare=spare, times=BatchTimes(SLOW), max_delay_s=600.0)
    callers = [Caller(1, 4), Caller(2, 4)]
    stage.submit(batcher, *callers)
    assert len(stage.engine.entered()) == 4
    assert batcher.waiting == 4
    stage.engine.open()
    for caller in callers:
        assert caller.rows() == caller.own_rows()


def test_fault_on_a_spare_cpu_is_the_answer_of_its_requests_alone(
    stage: Stage, batcher: Batcher
) -> None:
    first = stage.occupy(batcher)
    two = Caller(1, 2)
    stage.submit(batcher, two)
    assert len(stage.engine.entered()) == 2
    # Either may hear it first.
    stage.engine.let_go(ValueError("of the test"))
    stage.engine.let_go()
    outcomes = [first.outcome(), two.outcome()]
    assert [isinstance(outcome, InternalFault) for outcome in outcomes].count(True) == 1


def test_batcher_ends_when_its_batches_on_spare_cpus_have(stage: Stage, batcher: Batcher) -> None:
    first, two = stage.occupy(batcher), Caller(1, 2)
    stage.submit(batcher, two)
    assert len(stage.engine.entered()) == 2
    batcher.close()
    assert not batcher.join(0.0)
    stage.engine.open()
    assert batcher.join(PATIENCE_S)
    for caller in (first, two):
        assert caller.rows() == caller.own_rows()

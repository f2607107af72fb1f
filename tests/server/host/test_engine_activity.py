import os
from collections.abc import Iterator

import pytest

from convserve_server.host.engine_activity import EngineActivity, create


@pytest.fixture
def engines() -> Iterator[int]:
    descriptor = create(3)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def workers(engines: int) -> list[EngineActivity]:
    return [EngineActivity(engines, index) for index in range(3)]


def test_only_engine_at_work_knows_it(workers: list[EngineActivity]) -> None:
    first, second, third = workers
    assert first.begin()
    assert not second.begin()
    first.end()
    assert not third.begin()
    second.end()
    third.end()
    assert third.begin()


def test_second_engine_of_one_worker_is_not_alone(workers: list[EngineActivity]) -> None:
    first, second, _ = workers
    assert first.begin()
    assert not first.begin()
    first.end()
    assert not second.begin()
    second.end()
    first.end()
    assert second.begin()


def test_worker_that_was_killed_at_work_leaves_no_mark_after_its_restart(
    workers: list[EngineActivity], engines: int
) -> None:
    workers[1].begin()
    assert not workers[0].begin()
    workers[0].end()
    EngineActivity(engines, 1)
    assert workers[0].begin()


def test_more_engines_at_work_than_a_byte_holds_are_still_counted(
    workers: list[EngineActivity],
) -> None:
    for _ in range(300):
        workers[0].begin()
    for _ in range(299):
        workers[0].end()
    assert not workers[1].begin()
    workers[1].end()
    workers[0].end()
    assert workers[1].begin()

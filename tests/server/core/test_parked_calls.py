"""Calls that wait for a model to be loaded again."""

import time
from dataclasses import dataclass

import pytest

from convserve_server.core.errors import ModelIdle, QueueFull
from convserve_server.core.parked_calls import ParkedCalls


@dataclass(eq=False)
class FakeWork:
    model: str
    deadline: float | None = None
    held_bytes: int = 1


class Parked(ParkedCalls[FakeWork]):
    """With the models that were woken."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        super().__init__(self.woken.append)

    def keep(
        self, *work: FakeWork, load_s: float = 1.0, most: int = 10, most_bytes: int = 10
    ) -> None:
        for one in work:
            self.park(one, load_s, most, most_bytes)


def test_calls_are_kept_by_model_and_the_first_of_each_wakes_it() -> None:
    calls = Parked()
    first, second, other = FakeWork("a"), FakeWork("a"), FakeWork("b")
    calls.keep(first, second, other)
    assert calls.woken == ["a", "b"]
    assert calls.names() == {"a", "b"}
    assert calls.take(["a"]) == [first, second]
    assert calls.take(["a"]) == []
    assert calls.take(["b", "c"]) == [other]
    assert calls.names() == frozenset()


def test_a_model_is_woken_again_after_it_was_loaded_and_unloaded_again() -> None:
    calls = Parked()
    for _ in range(2):
        calls.keep(FakeWork("a"))
        calls.take(["a"])
    assert calls.woken == ["a", "a"]


def test_a_deadline_before_the_model_is_loaded_is_refused_and_wakes_it_all_the_same() -> None:
    calls = Parked()
    with pytest.raises(ModelIdle, match="loaded again") as refused:
        calls.keep(FakeWork("a", time.monotonic() + 2.0), load_s=2.0)
    assert refused.value.retry_after_s == 3.0
    assert calls.woken == ["a"]
    assert calls.take(["a"]) == []


def test_a_deadline_after_the_model_is_loaded_is_kept() -> None:
    calls = Parked()
    work = FakeWork("a", time.monotonic() + 60.0)
    calls.keep(work, load_s=2.0)
    assert calls.take(["a"]) == [work]


def test_no_more_calls_than_the_limit_are_kept() -> None:
    calls = Parked()
    calls.keep(FakeWork("a"), most=1)
    with pytest.raises(QueueFull, match="1 calls wait for model a"):
        calls.keep(FakeWork("a"), most=1)
    calls.keep(FakeWork("b"), most=1)


def test_no_more_bytes_than_the_limit_are_kept_but_for_a_single_call() -> None:
    calls = Parked()
    calls.keep(FakeWork("a", held_bytes=11))
    with pytest.raises(QueueFull, match="10 bytes"):
        calls.keep(FakeWork("a"))
    calls.keep(FakeWork("b", held_bytes=5), FakeWork("b", held_bytes=5))
    with pytest.raises(QueueFull):
        calls.keep(FakeWork("b"))


def test_a_call_that_is_forgotten_does_not_begin() -> None:
    calls = Parked()
    gone, stays = FakeWork("a"), FakeWork("a")
    calls.keep(gone, stays)
    calls.forget(gone)
    calls.forget(gone)
    assert calls.take(["a"]) == [stays]

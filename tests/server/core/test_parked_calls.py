"""Calls that wait for a model to be loaded again."""

import time
from dataclasses import dataclass, field

import pytest

from convserve_server.core.errors import ModelLoading, QueueFull, ServeError
from convserve_server.core.parked_calls import ParkedCalls


@dataclass(eq=False)
class FakeWork:
    model: str
    deadline: float | None = None
    errors: list[ServeError] = field(default_factory=list)

    def fail(self, error: ServeError) -> None:
        self.errors.append(error)


def parked_calls(most: int = 10) -> tuple[ParkedCalls[FakeWork], list[str]]:
    woken: list[str] = []
    return ParkedCalls(woken.append, most), woken


def test_calls_are_kept_by_model_and_the_first_of_each_wakes_it() -> None:
    calls, woken = parked_calls()
    first, second, other = FakeWork("a"), FakeWork("a"), FakeWork("b")
    for work in (first, second, other):
        calls.park(work, load_s=1.0)
    assert woken == ["a", "b"]
    assert calls.take(["a"]) == [first, second]
    assert calls.take(["a"]) == []
    assert calls.take(["b", "c"]) == [other]


def test_a_model_is_woken_again_after_it_was_loaded_and_unloaded_again() -> None:
    calls, woken = parked_calls()
    for _ in range(2):
        calls.park(FakeWork("a"), load_s=1.0)
        calls.take(["a"])
    assert woken == ["a", "a"]


def test_a_deadline_before_the_model_is_loaded_is_refused_and_wakes_it_all_the_same() -> None:
    calls, woken = parked_calls()
    with pytest.raises(ModelLoading, match="loaded again") as refused:
        calls.park(FakeWork("a", time.monotonic() + 2.0), load_s=2.0)
    assert refused.value.retry_after_s == 3.0
    assert woken == ["a"]
    assert calls.take(["a"]) == []


def test_a_deadline_after_the_model_is_loaded_is_kept() -> None:
    calls, _ = parked_calls()
    work = FakeWork("a", time.monotonic() + 60.0)
    calls.park(work, load_s=2.0)
    assert calls.take(["a"]) == [work]


def test_no_more_than_the_limit_are_kept() -> None:
    calls, _ = parked_calls(most=1)
    calls.park(FakeWork("a"), load_s=1.0)
    with pytest.raises(QueueFull, match="1 calls wait for model a"):
        calls.park(FakeWork("a"), load_s=1.0)
    calls.park(FakeWork("b"), load_s=1.0)


def test_a_call_that_is_forgotten_does_not_begin() -> None:
    calls, _ = parked_calls()
    gone, stays = FakeWork("a"), FakeWork("a")
    calls.park(gone, load_s=1.0)
    calls.park(stays, load_s=1.0)
    calls.forget(gone)
    calls.forget(gone)
    assert calls.take(["a"]) == [stays]


def test_calls_for_a_model_that_cannot_be_loaded_end_with_the_reason() -> None:
    calls, _ = parked_calls()
    work, other = FakeWork("a"), FakeWork("b")
    calls.park(work, load_s=1.0)
    calls.park(other, load_s=1.0)
    calls.fail({"a": "its file is gone"})
    assert [str(error) for error in work.errors] == [
        "model a cannot be loaded again: its file is gone"
    ]
    assert other.errors == []
    assert calls.take(["a", "b"]) == [other]

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from convserve.command.in_order import AHEAD, in_order
from tests.clients.scripted_server import PATIENCE_S


def never() -> None:
    raise AssertionError("nothing was to be abandoned")


def test_results_are_in_the_order_of_the_things_whichever_is_first() -> None:
    last_done = threading.Event()

    def work(number: int) -> int:
        if number == 3:
            last_done.set()
        else:
            assert last_done.wait(PATIENCE_S)
        return number * 10

    results = in_order(work, range(4), at_once=4, abandon=never)
    assert list(results) == [0, 10, 20, 30]


def test_as_many_as_allowed_work_at_once_and_never_more() -> None:
    together, lock = threading.Barrier(3), threading.Lock()
    working = most = 0

    def work(_: int) -> None:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        together.wait(PATIENCE_S)  # Breaks unless three work at once.
        with lock:
            working -= 1

    assert len(list(in_order(work, range(30), at_once=3, abandon=never))) == 30
    assert most == 3


def test_no_more_things_are_read_than_fit_the_window_while_the_first_is_slow() -> None:
    read_so_far = 0
    release, full = threading.Event(), threading.Event()

    def things() -> Iterator[int]:
        nonlocal read_so_far
        for number in range(1000):
            read_so_far += 1
            if read_so_far == AHEAD * 2 + 1:
                full.set()
                release.set()
            yield number

    def work(number: int) -> int:
        if number == 0:
            assert release.wait(PATIENCE_S)
        return number

    results = in_order(work, things(), at_once=2, abandon=never)
    for given_back, number in enumerate(results):
        assert number == given_back
        # The one in hand is neither in the window nor given back.
        assert read_so_far - given_back <= AHEAD * 2 + 1
    assert full.is_set()


def test_result_is_given_before_the_last_thing_is_read() -> None:
    seen: list[int] = []

    def things() -> Iterator[int]:
        yield from range(200)
        assert seen, "all things were read before the first result was given"

    for result in in_order(lambda number: number, things(), at_once=1, abandon=never):
        seen.append(result)
    assert seen == list(range(200))


@pytest.mark.parametrize("index", [0, 5, 40])
def test_failing_work_abandons_the_rest(index: int) -> None:
    abandoned = threading.Event()

    def work(number: int) -> int:
        if number == index:
            raise LookupError("no more film")
        if number > index:
            assert abandoned.wait(PATIENCE_S)  # Under way until it is made to end.
        return number

    results = in_order(work, range(1000), at_once=4, abandon=abandoned.set)
    given: list[int] = []
    with pytest.raises(LookupError, match="no more film"):
        given.extend(iter(lambda: next(results), None))
    assert abandoned.is_set()
    assert next(results, None) is None


def test_caller_that_stops_early_abandons_the_rest() -> None:
    abandoned = threading.Event()

    def work(number: int) -> int:
        if number:
            assert abandoned.wait(PATIENCE_S)
        return number

    with closing(in_order(work, range(1000), at_once=4, abandon=abandoned.set)) as results:
        assert next(results) == 0
    assert abandoned.is_set()

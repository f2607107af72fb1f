"""Which calls a transport marks as those of an idle caller: who waits for each answer."""

import time
from queue import Queue

from convserve_server.protocols.convserve_v1.service import CLASSIFY
from convserve_server.transports.base import IDLE_CALLS_IN_A_ROW
from tests.server.conftest import WAIT_S, CallWatch, Serve, Served, answers, request_for


def watch(serve: Serve, front: str) -> tuple[Served, "Queue[bool]"]:
    """A server, and whether each call to it was of an idle caller, in order."""
    found: Queue[bool] = Queue()
    watching = CallWatch(CLASSIFY, lambda call: found.put(call.idle_caller))
    return serve(front, interceptors=[watching]), found


def marks(found: "Queue[bool]", count: int) -> list[bool]:
    return [found.get(timeout=60) for _ in range(count)]


def test_caller_who_waits_for_each_answer_is_idle_after_a_few(serve: Serve, front: str) -> None:
    served, found = watch(serve, front)
    for _ in range(IDLE_CALLS_IN_A_ROW - 1):
        assert answers(served.classify(request_for(5)).result()) == [5]
        assert marks(found, 1) == [False]
    # A call that comes while the last byte of an answer is on its way does not count, and on a busy
    # machine that is on its way for long.
    end = time.monotonic() + WAIT_S
    idle = False
    while not idle and time.monotonic() < end:
        assert answers(served.classify(request_for(5)).result()) == [5]
        [idle] = marks(found, 1)
    assert idle


def test_calls_beside_an_open_one_are_not_of_an_idle_caller(serve: Serve, front: str) -> None:
    served, found = watch(serve, front)
    served.engine.hold()
    first = served.classify(request_for(1))
    served.engine.wait_entered()
    beside = [served.classify(request_for(2)) for _ in range(2 * IDLE_CALLS_IN_A_ROW)]
    assert not any(marks(found, 1 + len(beside)))
    served.engine.release()
    assert [answers(each.result()) for each in (first, *beside)] == [[1], *[[2]] * len(beside)]

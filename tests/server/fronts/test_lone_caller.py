"""Which calls a front says are alone: those of one who waits for each answer, after a few."""

from queue import Queue

from convserve_server.fronts.grpcio_front import ALONE_IN_A_ROW
from convserve_server.service.service import CLASSIFY
from tests.server.conftest import Serve, Served, answers, request_for


def marks(served: Served) -> "Queue[bool]":
    """Whether each call that comes from now on was alone, in order."""
    methods = dict(served.worker._dispatcher._methods)
    found: Queue[bool] = Queue()

    def watched(call, reply):  # type: ignore[no-untyped-def]
        found.put(call.alone)
        return methods[CLASSIFY](call, reply)

    served.worker._dispatcher._methods = {**methods, CLASSIFY: watched}
    return found


def taken(found: "Queue[bool]", count: int) -> list[bool]:
    return [found.get(timeout=60) for _ in range(count)]


def test_caller_who_waits_for_each_answer_is_alone_after_a_few(serve: Serve, front: str) -> None:
    served = serve(front)
    found = marks(served)
    # A call that comes while the last byte of an answer is on its way does not count yet.
    calls = 4 * ALONE_IN_A_ROW
    for _ in range(calls):
        assert answers(served.classify(request_for(5)).result()) == [5]
    alone = taken(found, calls)
    assert not any(alone[: ALONE_IN_A_ROW - 1])
    assert any(alone[ALONE_IN_A_ROW - 1 :])


def test_calls_beside_an_open_one_are_not_alone(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    found = marks(served)
    first = served.classify(request_for(1))
    served.engine.wait_entered()
    beside = [served.classify(request_for(2)) for _ in range(2 * ALONE_IN_A_ROW)]
    assert not any(taken(found, 1 + len(beside)))
    served.engine.release()
    assert [answers(each.result()) for each in (first, *beside)] == [[1], *[[2]] * len(beside)]

"""The dispatcher between a front that only keeps what it is told and methods made up here."""

import threading
import weakref
from collections.abc import Callable
from typing import cast

import pytest

from convserve_server.errors import Cancelled, InternalFault, InvalidRequest, NotReady, ServeError
from convserve_server.front import Call, Cancellation, Front, Origin
from convserve_server.service.dispatcher import Cancel, Dispatcher, Method, Reply

PATIENCE_S = 60.0
METHOD = "/test.Service/Method"


class FakeFront:
    """Keeps the answers; can be held up or broken."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes | ServeError]] = []
        #: Called before an answer is kept.
        self.on_answer: Callable[[], None] = lambda: None

    def respond(self, call_id: int, payload: bytes) -> None:
        self.on_answer()
        self.answers.append((call_id, payload))

    def fail(self, call_id: int, error: ServeError) -> None:
        self.on_answer()
        self.answers.append((call_id, error))


class Desk:
    """A method that leaves its calls open, for the test to answer."""

    def __init__(self) -> None:
        self.replies: dict[int, Reply] = {}
        self.cancelled: list[int] = []

    def method(self, call: Call, reply: Reply) -> Cancel:
        id_ = call.id
        self.replies[id_] = reply
        return lambda: self.cancelled.append(id_)


def call(id_: int, method: str = METHOD) -> Call:
    return Call(id_, method, b"payload", None, "peer", lambda: Origin("peer", ()))


@pytest.fixture
def front() -> FakeFront:
    return FakeFront()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def dispatcher(front: FakeFront, desk: Desk) -> Dispatcher:
    return dispatch(front, desk.method)


def dispatch(front: FakeFront, method: Method) -> Dispatcher:
    return Dispatcher(cast("Front", front), {METHOD: method})


# Answers


def test_call_is_led_to_its_method_whole(front: FakeFront) -> None:
    taken: list[Call] = []
    other: list[Call] = []

    def keep(call: Call, reply: Reply) -> None:
        taken.append(call)

    def keep_other(call: Call, reply: Reply) -> None:
        other.append(call)

    dispatcher = Dispatcher(cast("Front", front), {METHOD: keep, "/test.Service/Other": keep_other})
    sent = [call(1), call(2, "/test.Service/Other"), call(3)]
    dispatcher.handle(sent)
    assert taken == [sent[0], sent[2]]
    assert other == [sent[1]]


def test_reply_at_once_is_the_answer(front: FakeFront) -> None:
    def method(call: Call, reply: Reply) -> None:
        reply(b"answer to " + call.payload)

    dispatcher = dispatch(front, method)
    dispatcher.handle([call(7)])
    assert front.answers == [(7, b"answer to payload")]
    assert dispatcher.wait_idle(0) == 0


def test_reply_at_once_with_a_way_to_cancel_is_in_flight_no_more(front: FakeFront) -> None:
    def method(call: Call, reply: Reply) -> Cancel:
        reply(b"answer")
        return lambda: pytest.fail("cancelled after its answer")

    dispatcher = dispatch(front, method)
    dispatcher.handle([call(1), Cancellation(1)])
    assert dispatcher.wait_idle(0) == 0
    assert front.answers == [(1, b"answer")]


def test_replies_later_in_any_order_go_to_their_calls(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    dispatcher.handle([call(1), call(2)])
    assert front.answers == []
    error = InvalidRequest("x", "is 1")
    desk.replies[2](b"two")
    desk.replies[1](error)
    assert front.answers == [(2, b"two"), (1, error)]


def test_reply_twice_answers_once(front: FakeFront, desk: Desk, dispatcher: Dispatcher) -> None:
    dispatcher.handle([call(1)])
    desk.replies[1](b"first")
    desk.replies[1](b"second")
    desk.replies[1](Cancelled("third"))
    assert front.answers == [(1, b"first")]
    assert desk.cancelled == []


def test_method_that_raises_a_serve_error_fails_with_it(front: FakeFront) -> None:
    error = InvalidRequest("x", "is 1")

    def method(call: Call, reply: Reply) -> None:
        raise error

    dispatcher = dispatch(front, method)
    dispatcher.handle([call(1)])
    assert front.answers == [(1, error)]
    assert dispatcher.wait_idle(0) == 0


def test_method_that_raises_is_internal_with_an_id_and_the_next_call_goes_on(
    front: FakeFront, caplog: pytest.LogCaptureFixture
) -> None:
    def method(call: Call, reply: Reply) -> None:
        if call.id == 1:
            raise ZeroDivisionError("our fault")
        reply(b"fine")

    dispatch(front, method).handle([call(1), call(2)])
    [(first, fault), second] = front.answers
    assert first == 1
    assert isinstance(fault, InternalFault)
    assert "our fault" not in str(fault)
    assert f"{METHOD} failed, id {fault.id}" in caplog.text
    assert "ZeroDivisionError: our fault" in caplog.text
    assert second == (2, b"fine")


def test_method_that_raises_after_its_reply_answers_once(front: FakeFront) -> None:
    def method(call: Call, reply: Reply) -> None:
        reply(b"answer")
        raise ZeroDivisionError

    dispatch(front, method).handle([call(1)])
    assert front.answers == [(1, b"answer")]


def test_method_that_nobody_has_is_answered(front: FakeFront, dispatcher: Dispatcher) -> None:
    dispatcher.handle([call(1, "/test.Service/None")])
    [(_, fault)] = front.answers
    assert isinstance(fault, InternalFault)
    assert dispatcher.wait_idle(0) == 0


# Cancelling


def test_cancellation_reaches_its_call_once_and_nothing_is_answered(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    dispatcher.handle([call(1), call(2), Cancellation(2)])
    assert desk.cancelled == [2]
    dispatcher.handle([Cancellation(2)])
    assert desk.cancelled == [2]
    desk.replies[2](b"too late")
    assert front.answers == []
    desk.replies[1](b"one")
    assert front.answers == [(1, b"one")]


def test_cancellation_after_the_answer_does_nothing(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    dispatcher.handle([call(1)])
    desk.replies[1](b"one")
    dispatcher.handle([Cancellation(1), Cancellation(99)])
    assert desk.cancelled == []
    assert front.answers == [(1, b"one")]


def test_cancellation_of_what_cannot_be_cancelled_drops_its_reply(front: FakeFront) -> None:
    replies: list[Reply] = []

    def method(call: Call, reply: Reply) -> None:
        replies.append(reply)

    dispatcher = dispatch(front, method)
    dispatcher.handle([call(1), Cancellation(1)])
    assert dispatcher.wait_idle(0) == 0
    replies[0](b"too late")
    assert front.answers == []


def test_cancel_that_replies_answers_nobody(front: FakeFront) -> None:
    """A batcher answers a cancelled request from within its cancel."""

    def method(call: Call, reply: Reply) -> Cancel:
        return lambda: reply(Cancelled("gone"))

    dispatcher = dispatch(front, method)
    dispatcher.handle([call(1), Cancellation(1)])
    assert front.answers == []


# Stopping


def test_draining_refuses_new_calls_and_finishes_the_others(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    dispatcher.handle([call(1), call(2)])
    dispatcher.drain()
    dispatcher.handle([call(3)])
    [(refused, error)] = front.answers
    assert refused == 3
    assert isinstance(error, NotReady)
    assert str(error) == "the server is stopping"
    assert error.retry_after_s
    assert 3 not in desk.replies
    assert dispatcher.wait_idle(0) == 2
    desk.replies[1](b"one")
    dispatcher.handle([Cancellation(2)])
    assert desk.cancelled == [2]
    assert dispatcher.wait_idle(0) == 0
    assert front.answers[1:] == [(1, b"one")]


@pytest.mark.parametrize("how", ["answer", "cancel"])
def test_wait_idle_ends_with_the_last_call(
    how: str, desk: Desk, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher.handle([call(1)])
    left: list[int] = []
    waiter = threading.Thread(target=lambda: left.append(dispatcher.wait_idle(PATIENCE_S)))
    asleep = threading.Event()
    wait = threading.Condition.wait

    def report(condition: threading.Condition, timeout: float | None = None) -> bool:
        # The condition's lock is held until it sleeps, so nobody can be faster.
        if threading.current_thread() is waiter:
            asleep.set()
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", report)
    waiter.start()
    assert asleep.wait(PATIENCE_S)
    if how == "answer":
        desk.replies[1](b"one")
    else:
        dispatcher.handle([Cancellation(1)])
    # Shorter than its own patience: it must be woken.
    waiter.join(PATIENCE_S / 2)
    assert left == [0]


def test_wait_idle_counts_an_answer_until_the_front_has_it(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    """Else the front could be closed just before the last answer."""
    on_its_way, go = threading.Event(), threading.Event()

    def hold_up() -> None:
        on_its_way.set()
        assert go.wait(PATIENCE_S)

    dispatcher.handle([call(1)])
    front.on_answer = hold_up
    answering = threading.Thread(target=lambda: desk.replies[1](b"one"))
    answering.start()
    assert on_its_way.wait(PATIENCE_S)
    before = dispatcher.wait_idle(0)
    go.set()
    after = dispatcher.wait_idle(PATIENCE_S)
    answering.join(PATIENCE_S)
    assert (before, after) == (1, 0)
    assert front.answers == [(1, b"one")]


def test_wait_idle_front_that_raises_counts_no_more(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    def broken() -> None:
        raise ConnectionError("the front is gone")

    front.on_answer = broken
    dispatcher.handle([call(1)])
    with pytest.raises(ConnectionError):
        desk.replies[1](b"one")
    assert dispatcher.wait_idle(0) == 0


def test_abandon_answers_all_in_flight_and_stops_their_work(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    dispatcher.handle([call(1), call(2), call(3)])
    desk.replies[2](b"two")
    dispatcher.drain()
    dispatcher.abandon()
    assert front.answers[0] == (2, b"two")
    assert [id_ for id_, _ in front.answers[1:]] == [1, 3]
    for _, error in front.answers[1:]:
        assert isinstance(error, NotReady)
        assert str(error) == "the server stopped before the answer was there"
    assert desk.cancelled == [1, 3]
    assert dispatcher.wait_idle(0) == 0
    desk.replies[1](b"too late")
    dispatcher.abandon()
    assert len(front.answers) == 3


# How many were answered


def test_answers_and_errors_count_but_not_cancelled_and_abandoned_calls(
    front: FakeFront, desk: Desk, dispatcher: Dispatcher
) -> None:
    dispatcher.handle([call(number) for number in range(1, 7)])
    assert dispatcher.answered() == 0
    desk.replies[1](b"one")
    desk.replies[2](InvalidRequest("field", "is wrong"))
    desk.replies[2](b"again")
    dispatcher.handle([Cancellation(3)])
    desk.replies[3](b"too late")
    # To ask does not change it.
    assert [dispatcher.answered() for _ in range(3)] == [2, 2, 2]
    desk.replies[4](b"four")
    dispatcher.abandon()
    desk.replies[5](b"too late")
    assert dispatcher.answered() == 3
    assert len(front.answers) == 5


def test_answers_of_many_threads_are_all_counted(front: FakeFront, desk: Desk) -> None:
    dispatcher = dispatch(front, desk.method)
    threads, each = 8, 2000
    dispatcher.handle([call(number) for number in range(threads * each)])
    start = threading.Barrier(threads)

    def answer(first: int) -> None:
        start.wait(PATIENCE_S)
        for number in range(first, first + each):
            desk.replies[number](b"")

    workers = [threading.Thread(target=answer, args=(n * each,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert dispatcher.answered() == threads * each


# What is kept in memory


def test_error_reaches_the_front_without_the_frames_that_hold_the_request(
    front: FakeFront,
) -> None:
    def method(call: Call, reply: Reply) -> Cancel:
        try:
            raise ValueError
        except ValueError as error:
            raise InvalidRequest("field", "is wrong") from error

    dispatch(front, method).handle([call(1)])
    ((_, error),) = front.answers
    assert isinstance(error, InvalidRequest)
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_payload_is_free_while_the_call_waits_for_its_answer(front: FakeFront, desk: Desk) -> None:
    class Payload:
        """Bytes cannot be watched."""

    payload = Payload()
    gone = weakref.ref(payload)
    dispatch(front, desk.method).handle(
        [Call(1, METHOD, cast("bytes", payload), None, "peer", lambda: Origin("peer", ()))]
    )
    del payload
    assert list(desk.replies) == [1]
    assert gone() is None

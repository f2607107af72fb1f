"""The router between calls that keep their answers and methods made up here."""

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial

import pytest
from google.rpc import code_pb2

from convserve_server.core.errors import Cancelled, Draining, InvalidRequest, ServeError
from convserve_server.protocols.base import (
    GONE,
    Call,
    Caller,
    Failure,
    Interceptor,
    Stream,
    StreamHandler,
    UnaryHandler,
    reply_all,
)
from convserve_server.protocols.call_follower import CallFollower
from convserve_server.protocols.router import Router
from convserve_server.telemetry.access_log import AccessLog
from convserve_server.telemetry.observer import Observer

PATIENCE_S = 60.0
METHOD = "/test.Service/Method"

Answer = tuple[int, bytes | Failure]


class Answers:
    """Keeps the answers to calls; can be held up or broken."""

    def __init__(self) -> None:
        self.kept: list[Answer] = []
        #: Whether the clients are found to have gone when they are answered.
        self.gone = False
        #: Called before an answer is kept.
        self.on_answer: Callable[[], None] = lambda: None

    def keep(self, number: int, answer: bytes | Failure) -> None:
        self.on_answer()
        self.kept.append((number, answer))


class NumberedCall(Call):
    """A call of a made-up transport."""

    def __init__(self, answers: Answers, number: int, method: str = METHOD) -> None:
        super().__init__(method, b"payload", None, "connection")
        self.number = number
        self._answers = answers

    def caller(self) -> Caller:
        return Caller("peer", ())

    def send(self, payload: bytes) -> bool:
        self._answers.keep(self.number, payload)
        return not self._answers.gone

    def send_failure(self, failure: Failure) -> None:
        self._answers.keep(self.number, failure)


def failure_of(error: ServeError) -> Failure:
    """What the made-up protocol makes of an error."""
    return Failure(99, str(error), (), error.reason)


class MadeUp:
    """A service with methods of the test."""

    name = "test.Service"

    def __init__(self, **methods: UnaryHandler) -> None:
        self._methods = methods
        self.stream: StreamHandler | None = None
        self.drained = False

    def unary(self) -> dict[str, UnaryHandler]:
        return self._methods

    def streams(self) -> dict[str, StreamHandler]:
        return {} if self.stream is None else {"Stream": self.stream}

    def failure(self, error: ServeError) -> Failure:
        return failure_of(error)

    def drain(self) -> None:
        self.drained = True


class Desk:
    """A method that leaves its calls open, for the test to answer."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.cancelled: list[int] = []

    def method(self, call: Call) -> None:
        assert isinstance(call, NumberedCall)
        number = call.number
        self.calls[number] = call
        call.on_cancel = lambda: self.cancelled.append(number)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def router(desk: Desk) -> Router:
    return route(desk.method)


def route(method: UnaryHandler, *interceptors: Interceptor) -> Router:
    return Router([MadeUp(Method=method)], interceptors)


def handle(router: Router, answers: Answers, *numbers: int) -> list[NumberedCall]:
    """Hands over calls with these numbers."""
    calls = [NumberedCall(answers, number) for number in numbers]
    for call in calls:
        router.handle(call)
    return calls


# Answers


def test_answers_that_are_sent_together_are_all_sent_before_any_has_ended(
    answers: Answers, desk: Desk, router: Router
) -> None:
    calls = handle(router, answers, 1, 2, 3)
    ended: list[tuple[int, int]] = []

    def note(number: int, _: Failure | None) -> None:
        ended.append((number, len(answers.kept)))

    for call in calls:
        call.add_end(partial(note, call.number))
    desk.calls[2].cancel()
    ended.clear()
    reply_all([(call, b"%d" % call.number) for call in calls])
    assert answers.kept == [(1, b"1"), (3, b"3")]
    assert ended == [(1, 2), (3, 2)]
    assert router.in_flight == 0


def test_of_answers_that_are_sent_together_one_that_cannot_be_sent_leaves_the_others(
    answers: Answers, router: Router
) -> None:
    def broken() -> None:
        answers.on_answer = lambda: None
        raise ConnectionError("its connection is gone")

    calls = handle(router, answers, 1, 2)
    answers.on_answer = broken
    with pytest.raises(ConnectionError):
        reply_all([(call, b"%d" % call.number) for call in calls])
    assert answers.kept == [(2, b"2")]
    assert router.wait_idle(0) == 0


def test_call_reaches_its_method_whole(answers: Answers) -> None:
    taken: list[tuple[str, Call, bytes]] = []

    def keep(name: str) -> UnaryHandler:
        return lambda call: taken.append((name, call, call.payload))

    router = Router([MadeUp(Method=keep("method"), Other=keep("other"))])
    first, last = handle(router, answers, 1, 2)
    other = NumberedCall(answers, 3, "/test.Service/Other")
    router.handle(other)
    assert taken == [
        ("method", first, b"payload"),
        ("method", last, b"payload"),
        ("other", other, b"payload"),
    ]


def test_reply_at_once_is_the_answer(answers: Answers) -> None:
    router = route(lambda call: call.reply(b"answer to " + call.payload))
    handle(router, answers, 7)
    assert answers.kept == [(7, b"answer to payload")]
    assert router.wait_idle(0) == 0


def test_reply_at_once_with_a_way_to_cancel_is_in_flight_no_more(answers: Answers) -> None:
    def method(call: Call) -> None:
        call.reply(b"answer")
        call.on_cancel = lambda: pytest.fail("cancelled after its answer")

    router = route(method)
    [call] = handle(router, answers, 1)
    call.cancel()
    assert router.wait_idle(0) == 0
    assert answers.kept == [(1, b"answer")]


def test_replies_later_in_any_order_go_to_their_calls(
    answers: Answers, desk: Desk, router: Router
) -> None:
    handle(router, answers, 1, 2)
    assert answers.kept == []
    failure = failure_of(InvalidRequest("x", "expected 2, got 1"))
    desk.calls[2].reply(b"two")
    desk.calls[1].fail(failure)
    assert answers.kept == [(2, b"two"), (1, failure)]


def test_reply_twice_answers_once(answers: Answers, desk: Desk, router: Router) -> None:
    handle(router, answers, 1)
    desk.calls[1].reply(b"first")
    desk.calls[1].reply(b"second")
    desk.calls[1].fail(failure_of(Cancelled("third")))
    assert answers.kept == [(1, b"first")]
    assert desk.cancelled == []


def test_method_that_raises_a_serve_error_fails_with_it(answers: Answers) -> None:
    error = InvalidRequest("x", "expected 2, got 1")

    def method(call: Call) -> None:
        raise error

    router = route(method)
    handle(router, answers, 1)
    assert answers.kept == [(1, failure_of(error))]
    assert router.wait_idle(0) == 0


def test_method_that_raises_is_internal_with_an_id_and_the_next_call_goes_on(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    def method(call: Call) -> None:
        assert isinstance(call, NumberedCall)
        if call.number == 1:
            raise ZeroDivisionError("our fault")
        call.reply(b"fine")

    handle(route(method), answers, 1, 2)
    [(first, fault), second] = answers.kept
    assert first == 1
    assert isinstance(fault, Failure)
    assert fault.reason == "INTERNAL_FAULT"
    assert "our fault" not in fault.message
    fault_id = fault.message.rpartition(" ")[2]
    assert f"{METHOD} failed, id {fault_id}" in caplog.text
    assert "ZeroDivisionError: our fault" in caplog.text
    assert second == (2, b"fine")


def test_method_that_raises_after_its_reply_answers_once(answers: Answers) -> None:
    def method(call: Call) -> None:
        call.reply(b"answer")
        raise ZeroDivisionError

    handle(route(method), answers, 1)
    assert answers.kept == [(1, b"answer")]


def test_call_to_a_method_that_nobody_has_says_which_services_exist(
    answers: Answers, router: Router
) -> None:
    router.handle(NumberedCall(answers, 1, "/test.Service/None"))
    [(_, failure)] = answers.kept
    assert isinstance(failure, Failure)
    assert failure.message == "no method '/test.Service/None'; services: test.Service"
    assert router.wait_idle(0) == 0


def test_message_over_the_limit_is_refused_before_its_method(answers: Answers) -> None:
    method = MadeUp(Method=lambda call: pytest.fail("was called"))
    router = Router([method], max_message_bytes=6)
    handle(router, answers, 1)
    [(_, failure)] = answers.kept
    assert isinstance(failure, Failure)
    assert failure.reason == "MESSAGE_TOO_LARGE"
    assert failure.message == "SERVER: Received message larger than max (7 vs. 6)"


# Interceptors


class Noting(Interceptor):
    """Notes the beginning and the end of each call."""

    def __init__(self, name: str, notes: list[object]) -> None:
        self._name = name
        self._notes = notes

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        def wrapped(call: Call) -> None:
            self._notes.append((self._name, method))
            call.add_end(lambda failure: self._notes.append((self._name, failure)))
            handler(call)

        return wrapped


def test_interceptors_wrap_each_other_from_the_first_to_the_last(
    answers: Answers, desk: Desk
) -> None:
    notes: list[object] = []
    router = route(desk.method, Noting("outer", notes), Noting("inner", notes))
    handle(router, answers, 1)
    assert notes == [("outer", METHOD), ("inner", METHOD)]
    desk.calls[1].reply(b"one")
    assert notes[2:] == [("inner", None), ("outer", None)]


def test_interceptor_hears_how_a_call_ended(answers: Answers, desk: Desk) -> None:
    notes: list[object] = []
    router = route(desk.method, Noting("all", notes))
    _, gone, _ = handle(router, answers, 1, 2, 3)
    failure = failure_of(Cancelled("x"))
    desk.calls[1].fail(failure)
    gone.cancel()
    router.abandon()
    stopped = Draining("the server stopped before the answer was there")
    assert notes[3:] == [("all", failure), ("all", GONE), ("all", failure_of(stopped))]


class Codes(Observer):
    """Keeps the status that each call has ended with."""

    def __init__(self) -> None:
        self.all: list[int] = []

    def finished(self, method: str, model: str, code: int, reason: str, seconds: float, /) -> None:
        self.all.append(code)


@pytest.mark.parametrize(
    ("left_s", "code"),
    [(-1.0, "DEADLINE_EXCEEDED"), (0.015, "DEADLINE_EXCEEDED"), (60.0, "CANCELLED")],
)
def test_client_that_ends_a_call_when_its_time_is_over_is_late_for_all(
    answers: Answers, desk: Desk, caplog: pytest.LogCaptureFixture, left_s: float, code: str
) -> None:
    caplog.set_level(logging.INFO)
    codes, follower = Codes(), CallFollower(AccessLog("all"))
    router = Router([MadeUp(Method=desk.method)], observer=codes, follower=follower)
    gone, answered = handle(router, answers, 1, 2)
    gone.deadline = answered.deadline = time.monotonic() + left_s
    gone.cancel()
    answers.gone = True
    answered.reply(b"to nobody")
    assert codes.all == [code_pb2.Code.Value(code)] * 2
    assert [vars(record)["code"] for record in caplog.records] == [code] * 2


def test_interceptor_that_refuses_keeps_a_call_from_its_method(answers: Answers) -> None:
    error = InvalidRequest("x", "expected 2, got 1")

    class Refusing(Interceptor):
        def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
            def refuse(call: Call) -> None:
                raise error

            return refuse

    handle(route(lambda _: pytest.fail("was called"), Refusing()), answers, 1)
    assert answers.kept == [(1, failure_of(error))]


class MadeUpStream(Stream):
    """A stream that keeps how it ends."""

    failure: Failure | None = None

    def caller(self) -> Caller:
        return Caller("peer", ())

    async def open(self) -> None:
        pass

    async def read(self) -> bytes | None:
        return None

    async def write(self, payload: bytes) -> None:
        pass

    async def fail(self, failure: Failure) -> None:
        self.failure = failure


@pytest.mark.parametrize("error", [InvalidRequest("x", "expected 2, got 1"), ZeroDivisionError()])
def test_stream_whose_handler_raises_fails_and_passes_its_interceptors(error: Exception) -> None:
    seen: list[str] = []

    class Seeing(Interceptor):
        def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
            async def wrapped(stream: Stream) -> None:
                seen.append(method)
                await handler(stream)

            return wrapped

    async def broken(_: Stream) -> None:
        raise error

    service = MadeUp()
    service.stream = broken
    router = Router([service], [Seeing()])

    async def serve() -> Failure | None:
        stream = MadeUpStream("/test.Service/Stream", None, "connection", router.handle)
        await router.handle_stream(stream)
        return stream.failure

    failure = asyncio.run(serve())
    assert failure is not None
    expected = error.reason if isinstance(error, ServeError) else "INTERNAL_FAULT"
    assert failure.reason == expected
    assert seen == ["/test.Service/Stream"]


# Cancelling


def test_cancellation_reaches_its_call_once_and_nothing_is_answered(
    answers: Answers, desk: Desk, router: Router
) -> None:
    _, gone = handle(router, answers, 1, 2)
    gone.cancel()
    assert desk.cancelled == [2]
    gone.cancel()
    assert desk.cancelled == [2]
    desk.calls[2].reply(b"too late")
    assert answers.kept == []
    desk.calls[1].reply(b"one")
    assert answers.kept == [(1, b"one")]


def test_cancellation_after_the_answer_does_nothing(
    answers: Answers, desk: Desk, router: Router
) -> None:
    [call] = handle(router, answers, 1)
    desk.calls[1].reply(b"one")
    call.cancel()
    assert desk.cancelled == []
    assert answers.kept == [(1, b"one")]


def test_cancellation_of_what_cannot_be_cancelled_drops_its_reply(answers: Answers) -> None:
    router = route(lambda call: None)
    [call] = handle(router, answers, 1)
    call.cancel()
    assert router.wait_idle(0) == 0
    call.reply(b"too late")
    assert answers.kept == []


def test_cancel_that_replies_answers_nobody(answers: Answers) -> None:
    """A batcher answers a cancelled request from within its cancel."""

    def method(call: Call) -> None:
        call.on_cancel = lambda: call.fail(failure_of(Cancelled("gone")))

    [call] = handle(route(method), answers, 1)
    call.cancel()
    assert answers.kept == []


# Stopping


def test_drain_reaches_every_service() -> None:
    service = MadeUp()
    Router([service]).drain()
    assert service.drained


def test_refusing_refuses_new_calls_and_finishes_the_others(
    answers: Answers, desk: Desk, router: Router
) -> None:
    _, gone = handle(router, answers, 1, 2)
    router.refuse()
    handle(router, answers, 3)
    assert answers.kept == [(3, failure_of(Draining("the server is stopping")))]
    assert 3 not in desk.calls
    assert router.answered() == 0
    assert router.wait_idle(0) == 2
    desk.calls[1].reply(b"one")
    gone.cancel()
    assert desk.cancelled == [2]
    assert router.wait_idle(0) == 0
    assert answers.kept[1:] == [(1, b"one")]


@pytest.mark.parametrize("how", ["answer", "cancel"])
def test_wait_idle_ends_with_the_last_call(
    how: str,
    answers: Answers,
    desk: Desk,
    router: Router,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [call] = handle(router, answers, 1)
    left: list[int] = []
    waiter = threading.Thread(target=lambda: left.append(router.wait_idle(PATIENCE_S)))
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
        desk.calls[1].reply(b"one")
    else:
        call.cancel()
    # Shorter than its own patience: it must be woken.
    waiter.join(PATIENCE_S / 2)
    assert left == [0]


def test_wait_idle_counts_an_answer_until_the_transport_has_it(
    answers: Answers, desk: Desk, router: Router
) -> None:
    """Else the transport could be closed just before the last answer."""
    on_its_way, go = threading.Event(), threading.Event()

    def hold_up() -> None:
        on_its_way.set()
        assert go.wait(PATIENCE_S)

    handle(router, answers, 1)
    answers.on_answer = hold_up
    answering = threading.Thread(target=lambda: desk.calls[1].reply(b"one"))
    answering.start()
    assert on_its_way.wait(PATIENCE_S)
    before = router.wait_idle(0)
    go.set()
    after = router.wait_idle(PATIENCE_S)
    answering.join(PATIENCE_S)
    assert (before, after) == (1, 0)
    assert answers.kept == [(1, b"one")]


def test_wait_idle_transport_that_raises_counts_no_more(
    answers: Answers, desk: Desk, router: Router
) -> None:
    def broken() -> None:
        raise ConnectionError("the transport is gone")

    answers.on_answer = broken
    handle(router, answers, 1)
    with pytest.raises(ConnectionError):
        desk.calls[1].reply(b"one")
    assert router.wait_idle(0) == 0


def test_abandon_answers_all_in_flight_and_stops_their_work(
    answers: Answers, desk: Desk, router: Router
) -> None:
    handle(router, answers, 1, 2, 3)
    desk.calls[2].reply(b"two")
    router.refuse()
    router.abandon()
    failure = failure_of(Draining("the server stopped before the answer was there"))
    assert answers.kept == [(2, b"two"), (1, failure), (3, failure)]
    assert desk.cancelled == [1, 3]
    assert router.wait_idle(0) == 0
    desk.calls[1].reply(b"too late")
    router.abandon()
    assert len(answers.kept) == 3


# How many were answered


def test_answers_and_errors_count_but_not_cancelled_and_abandoned_calls(
    answers: Answers, desk: Desk, router: Router
) -> None:
    calls = handle(router, answers, *range(1, 7))
    assert router.answered() == 0
    desk.calls[1].reply(b"one")
    desk.calls[2].fail(failure_of(InvalidRequest("field", "expected 2, got 1")))
    desk.calls[2].reply(b"again")
    calls[2].cancel()
    desk.calls[3].reply(b"too late")
    # To ask does not change it.
    assert [router.answered() for _ in range(3)] == [2, 2, 2]
    desk.calls[4].reply(b"four")
    router.abandon()
    desk.calls[5].reply(b"too late")
    assert router.answered() == 3
    assert len(answers.kept) == 5


def test_answers_of_many_threads_are_all_counted(
    answers: Answers, desk: Desk, router: Router
) -> None:
    threads, each = 8, 2000
    handle(router, answers, *range(threads * each))
    start = threading.Barrier(threads)

    def answer(first: int) -> None:
        start.wait(PATIENCE_S)
        for number in range(first, first + each):
            desk.calls[number].reply(b"")

    workers = [threading.Thread(target=answer, args=(n * each,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert router.answered() == threads * each


# What is kept in memory


def test_payload_is_free_while_the_call_waits_for_its_answer(
    answers: Answers, desk: Desk, router: Router
) -> None:
    class Payload(bytearray):
        """Bytes cannot be watched."""

    payload = Payload(b"payload")
    gone = weakref.ref(payload)
    call = NumberedCall(answers, 1)
    call.payload = payload  # type: ignore[assignment]
    del payload
    router.handle(call)
    assert gone() is None
    desk.calls[1].reply(b"one")

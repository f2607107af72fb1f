"""What the native transport does with calls that waited before it could fetch them."""

from collections import Counter
from typing import Any

import pytest
from google.rpc import code_pb2
from pygrpc_native import EVENT_CALL, EVENT_CANCEL

from convserve_server.core.errors import DeadlinePassed, QueueFull
from convserve_server.core.wake_ups import held
from convserve_server.protocols.base import (
    Call,
    Failure,
    Interceptor,
    Metadata,
    StreamHandler,
    UnaryHandler,
)
from convserve_server.protocols.grpc_errors import to_failure
from convserve_server.protocols.router import Router
from convserve_server.telemetry.observer import Observer
from convserve_server.transports.base import TransportOptions
from convserve_server.transports.margin import AnswerMargin
from convserve_server.transports.native import NativeTransport

METHOD = "/test.Test/Call"

Event = tuple[int, int, int, bytes | None, None, tuple[Metadata, str, float | None] | None]


def call_event(number: int, left_s: float | None = 60.0, metadata: Metadata = ()) -> Event:
    return EVENT_CALL, number, 0, str(number).encode(), None, (metadata, "peer", left_s)


def left_event(number: int) -> Event:
    return EVENT_CANCEL, number, 0, None, None, None


class Service:
    """Keeps its calls open, and notes them by what they sent."""

    name = "test.Test"

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.cancelled: list[int] = []

    def unary(self) -> dict[str, UnaryHandler]:
        return {"Call": self._handle}

    def streams(self) -> dict[str, StreamHandler]:
        return {}

    def failure(self, error: Any) -> Failure:
        return to_failure(error)

    def drain(self) -> None:
        pass

    def _handle(self, call: Call) -> None:
        number = int(call.payload)
        self.handled.append(number)
        call.on_cancel = lambda: self.cancelled.append(number)


class Full:
    """A handler that refuses all calls, and notes which of them were made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, call: Call) -> None:
        self.made.append(int(call.payload))
        call.model = "mnist/1"
        raise QueueFull("no space", 0.01)

    def refusal(
        self, payload: bytes, connection: str, deadline: float | None, now: float
    ) -> tuple[str, QueueFull] | None:
        del payload, deadline, now
        assert connection == "peer"
        return "mnist/1", QueueFull("no space", 0.01)


class FullService(Service):
    """A service whose handler refuses all calls."""

    def __init__(self) -> None:
        super().__init__()
        self.full = Full()

    def unary(self) -> dict[str, UnaryHandler]:
        return {"Call": self.full}


class Refused(Observer):
    """Notes why calls were refused, and the codes with which calls have ended."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.codes: Counter[int] = Counter()

    def finished(self, method: str, model: str, code: int, reason: str, seconds: float, /) -> None:
        assert (method, model) in {(METHOD, ""), (METHOD, "mnist/1")}
        self.codes[code] += 1

    def refused(self, method: str, reason: str) -> None:
        self.reasons.append(reason)


class Front:
    """Stands for the library's: gives lists of events, then says that it is closed."""

    def __init__(self, trips: list[list[Event]]) -> None:
        self._trips = trips
        self.failed: list[int] = []
        self.failures: set[tuple[object, ...]] = set()

    def fail(self, number: int, code: int, message: str, trailers: Any) -> bool:
        self.failed.append(number)
        self.failures.add((code, message, *trailers))
        return True

    def recv_batch_details(self, max_events: int) -> list[Event] | None:
        del max_events
        return self._trips.pop(0) if self._trips else None


def receive(
    *trips: list[Event], service: Service | None = None
) -> tuple[Service, Refused, NativeTransport]:
    """Has a transport receive lists of events, each of one trip."""
    service, refused = service or Service(), Refused()
    transport = NativeTransport(TransportOptions("127.0.0.1", 0, 2**20, 60, 0.0, False))
    transport._router = Router([service], observer=refused)
    transport._methods = (METHOD,)
    transport.front = Front(list(trips))  # type: ignore[assignment]
    transport._receive()
    return service, refused, transport


def test_few_calls_are_handled_in_their_order() -> None:
    service, _, _ = receive([call_event(1), call_event(2)], [call_event(3)])
    assert service.handled == [1, 2, 3]


def test_calls_that_came_together_wake_others_when_all_are_handled() -> None:
    handled: list[int] = []
    #: How many calls were handled when each wake-up came; and whether it was put off.
    woken: list[int] = []
    put_off: list[bool] = []

    class Waking(Service):
        def _handle(self, call: Call) -> None:
            handled.append(int(call.payload))
            put_off.append(held(lambda: woken.append(len(handled))))

    receive([call_event(1), call_event(2), call_event(3)], [call_event(4)], service=Waking())
    assert handled == [1, 2, 3, 4]
    assert put_off == [True, True, True, False]
    assert woken == [3, 3, 3]


def test_of_many_calls_that_waited_the_last_is_handled_first() -> None:
    service, _, _ = receive([call_event(number) for number in range(200)], [call_event(200)])
    assert service.handled == [*range(199, -1, -1), 200]


@pytest.mark.parametrize("others", [0, 200])
def test_call_whose_deadline_has_passed_is_not_handled(others: int) -> None:
    more = [call_event(100 + number, None) for number in range(others)]
    service, refused, transport = receive([call_event(1, 0.0), call_event(2), *more])
    assert sorted(service.handled) == [2, *range(100, 100 + others)]
    assert refused.reasons == [DeadlinePassed.reason]
    assert refused.codes == {code_pb2.DEADLINE_EXCEEDED: 1}
    assert 1 not in transport.open


def test_call_that_left_while_it_waited_is_not_handled() -> None:
    many = [call_event(number, None if number == 8 else 60.0) for number in range(200)]
    many[9] = call_event(9, 0.0)
    left = [left_event(number) for number in (7, 8, 9)]
    service, refused, transport = receive([*many, *left])
    assert not {7, 8, 9} & {*service.handled}
    # Each is counted once, as its client has it.
    assert refused.codes == {code_pb2.CANCELLED: 2, code_pb2.DEADLINE_EXCEEDED: 1}
    assert len(service.handled) == len(transport.open) == 197
    assert service.cancelled == []


@pytest.mark.parametrize("others", [0, 200])
def test_call_that_leaves_is_cancelled(others: int) -> None:
    more = [call_event(100 + number) for number in range(others)]
    service, refused, transport = receive([call_event(1), call_event(2)], [*more, left_event(1)])
    assert service.cancelled == [1]
    assert refused.codes == {code_pb2.CANCELLED: 1}
    assert 1 not in transport.open
    assert 2 in transport.open


def test_call_is_planned_to_be_answered_before_its_deadline() -> None:
    _, _, transport = receive([call_event(1, 60.0)])
    transport.margin.seconds = 5.0
    transport.front = Front([[call_event(2, 60.0)]])  # type: ignore[assignment]
    transport._receive()
    first, second = transport.open[1].deadline, transport.open[2].deadline
    assert first is not None
    assert second is not None
    assert second < first


def test_deadlines_that_pass_raise_the_margin() -> None:
    _, _, transport = receive([call_event(number) for number in range(64)])
    before = transport.margin.seconds
    for call in transport.open.values():
        assert call.deadline is not None
        call.deadline -= 120.0
        call.arrived -= 120.0
    transport.front = Front([[left_event(number) for number in range(64)]])  # type: ignore[assignment]
    transport._receive()
    assert not transport.open
    assert transport.margin.seconds > before


def test_callers_that_give_up_early_do_not_raise_the_margin() -> None:
    gone = [left_event(number) for number in range(64)]
    _, _, transport = receive([call_event(number) for number in range(64)], gone)
    assert not transport.open
    assert transport.margin.seconds == AnswerMargin().seconds


def receive_full(
    *trips: list[Event], interceptors: tuple[Interceptor, ...] = ()
) -> tuple[FullService, Refused, Front]:
    """Has a transport receive calls of which each is refused."""
    service, refused, front = FullService(), Refused(), Front(list(trips))
    transport = NativeTransport(TransportOptions("127.0.0.1", 0, 2**20, 60, 0.0, False))
    transport._router = Router([service], interceptors, observer=refused)
    transport._methods = (METHOD,)
    transport.front = front  # type: ignore[assignment]
    transport._receive()
    assert not transport.open
    return service, refused, front


def test_many_calls_are_refused_before_they_are_made() -> None:
    service, refused, front = receive_full([call_event(number) for number in range(200)])
    assert service.full.made == []
    assert front.failed == list(range(199, -1, -1))
    assert refused.reasons == 200 * ["QUEUE_FULL"]
    assert refused.codes == {code_pb2.RESOURCE_EXHAUSTED: 200}


def test_few_calls_are_refused_so_while_others_are() -> None:
    service, refused, front = receive_full(*([call_event(number)] for number in range(4)))
    assert service.full.made == [0]
    assert front.failed == [0, 1, 2, 3]
    # Their callers see no difference.
    assert len(front.failures) == 1
    assert refused.codes == {code_pb2.RESOURCE_EXHAUSTED: 4}


@pytest.mark.parametrize("name", ["convserve-priority", "x-request-id"])
def test_call_that_says_more_is_made(name: str) -> None:
    events = [call_event(number, metadata=((name, "some"),)) for number in range(200)]
    service, _, front = receive_full(events)
    assert service.full.made == front.failed == list(range(199, -1, -1))


class Wrapping(Interceptor):
    """Sees every call."""

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        return lambda call: handler(call)


def test_who_sees_every_call_sees_those_that_are_refused() -> None:
    events = [call_event(number) for number in range(200)]
    service, _, _ = receive_full(events, interceptors=(Wrapping(),))
    assert len(service.full.made) == 200

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.rpc import error_details_pb2

from convserve import (
    Cancelled,
    CannotMeetDeadline,
    Classification,
    ClientClosed,
    ConvserveError,
    DeadlineExceeded,
    InvalidRequest,
    ServerBusy,
    ServerFault,
    ServerUnavailable,
)
from convserve.deadline import Deadline
from convserve.retries import Tries
from convserve_protos import classifier_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import (
    PATIENCE_S,
    Answer,
    Failure,
    ScriptedServer,
    answer,
    expected_label,
)

Digits = npt.NDArray[np.uint8]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
AT_ONCE = [("grpc-retry-pushback-ms", "1")]
NEVER_BY_GRPC = [("grpc-retry-pushback-ms", "-1")]


def after(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return info


def reason(name: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(domain="convserve", reason=name)


def label(outcome: Classification | ConvserveError) -> str:
    assert isinstance(outcome, Classification)
    return outcome.label


def refusal(
    code: grpc.StatusCode = RESOURCE_EXHAUSTED, seconds: float = 0.001, why: str = "QUEUE_FULL"
) -> Failure:
    """As a server of ours refuses; without the trailer that gRPC reads, as on the native front."""
    return Failure(code, "refused", [reason(why), after(seconds)], NEVER_BY_GRPC)


def failing_first(times: int, make: Callable[[], Failure]) -> Answer:
    """Each different request fails that often before it is answered."""
    lock, seen = threading.Lock(), Counter[bytes]()

    def fail_first(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        with lock:
            seen[request.pixels.data] += 1
            failing = seen[request.pixels.data] <= times
        if failing:
            raise make()
        return answer(request)

    return fail_first


def test_call_that_was_lost_is_tried_again_by_the_channel(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(2, lambda: Failure(UNAVAILABLE, "lost", trailers=AT_ONCE))
    assert connect().classify(digits[0]).label == expected_label(digits[0])
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [UNAVAILABLE, RESOURCE_EXHAUSTED])
def test_refused_call_is_tried_again_when_the_server_says(
    connect: Connect, server: ScriptedServer, digits: Digits, code: grpc.StatusCode
) -> None:
    came: list[float] = []
    fail_first = failing_first(1, lambda: refusal(code, seconds=0.3))

    def note(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        came.append(time.monotonic())
        return fail_first(request)

    server.answer = note
    assert connect().classify(digits[0]).label == expected_label(digits[0])
    first, second = came
    assert second - first >= 0.3


def test_refused_call_that_the_server_names_no_time_for_is_not_tried_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    # Neither by the channel, whatever its trailer says.
    server.answer = failing_first(1, lambda: Failure(RESOURCE_EXHAUSTED, trailers=AT_ONCE))
    with pytest.raises(ServerBusy, match="^scripted$"):
        connect().classify(digits[0])
    assert len(server.requests) == 1


def test_call_that_cannot_meet_its_deadline_is_not_tried_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, lambda: refusal(why="CANNOT_MEET_DEADLINE"))
    for images in (digits[0], digits[1:41]):
        with pytest.raises(CannotMeetDeadline, match="^refused$") as caught:
            connect(max_images_per_call=64).classify(images)
        assert caught.value.retry_after_s == 0.001
    assert len(server.requests) == 2


def test_call_whose_deadline_is_before_the_time_is_not_tried_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, lambda: refusal(seconds=3600))
    with pytest.raises(ServerBusy, match="^refused; .* s are left, too few for another try$"):
        connect().classify(digits[0])
    assert len(server.requests) == 1


def test_client_that_never_tries_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, refusal)
    with pytest.raises(ServerBusy):
        connect(max_tries=1).classify(digits[0])
    assert len(server.requests) == 1


def unavailable() -> Failure:
    """What gRPC itself tries again."""
    return Failure(UNAVAILABLE, "gone")


def starting() -> Failure:
    """What a server answers that says when it will be there."""
    return Failure(UNAVAILABLE, "starting", [after(0.001)], NEVER_BY_GRPC)


@pytest.mark.parametrize("failure", [unavailable, starting])
def test_lost_calls_are_tried_again_unless_a_proxy_does_that(
    connect: Connect,
    server: ScriptedServer,
    digits: Digits,
    failure: Callable[[], Failure],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.answer = failing_first(1, failure)
    assert connect().classify(digits[0]).label == expected_label(digits[0])
    assert len(server.requests) == 2
    monkeypatch.setenv("CONVSERVE_RETRY_UNAVAILABLE", "0")
    without = (connect(), connect(retry_unavailable=False))
    for number, client in enumerate(without, start=1):
        with pytest.raises(ServerUnavailable):
            client.classify(digits[number])
        assert len(server.requests) == 2 + number
    outcomes = dict(without[0].stream(iter(digits[3:4])))
    assert isinstance(outcomes[0], ServerUnavailable)
    assert len(server.requests) == 4  # What is on a stream is not counted there.
    monkeypatch.setenv("CONVSERVE_RETRY_UNAVAILABLE", "1")
    assert connect().classify(digits[5]).label == expected_label(digits[5])


def test_full_queue_is_felt_behind_a_proxy_too(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, refusal)
    connect(retry_unavailable=False).classify(digits[0])
    assert len(server.requests) == 2


def test_variable_of_retries_that_is_no_switch(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSERVE_RETRY_UNAVAILABLE", "no")
    why = r"^CONVSERVE_RETRY_UNAVAILABLE: expected 1 or 0, got 'no'$"
    with pytest.raises(InvalidRequest, match=why):
        connect()


def test_refused_calls_of_a_split_request_are_tried_again_one_by_one(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(2, refusal)
    # All that are in flight wait at one time, too.
    classification = connect(max_images_per_call=20, max_in_flight=2).classify(digits)
    assert [one.label for one in classification] == [expected_label(one) for one in digits]
    assert len(server.requests) == 15
    assert server.most_in_flight <= 2


def test_split_request_ends_when_a_call_of_it_had_its_tries(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(9, refusal)
    with pytest.raises(ServerBusy, match="^refused; tried 3 times$"):
        connect(max_images_per_call=1, max_in_flight=1, max_tries=3).classify(digits)
    assert len(server.requests) == 3


def test_list_of_models_is_asked_for_again(connect: Connect, server: ScriptedServer) -> None:
    refusals = iter([refusal(), refusal()])
    server.before_list = lambda: next(refusals, None)
    assert [model.name for model in connect().models()] == ["mnist"]
    assert server.lists == 3


def test_refused_items_of_a_stream_are_tried_again_as_calls(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(2, refusal)
    outcomes = dict(connect().stream(iter(digits[:20]), priority="batch"))
    assert {number: label(outcome) for number, outcome in outcomes.items()} == {
        number: expected_label(digit) for number, digit in enumerate(digits[:20])
    }
    assert len(server.requests) == 40  # The first try was on the stream.
    assert set(map(str, server.metadata)) == {"{'convserve-priority': 'batch'}"}


def test_item_of_a_stream_that_had_its_tries_yields_the_refusal(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    refuse = failing_first(9, refusal)
    server.answer = lambda request: (
        refuse(request) if request.pixels.data == digits[1].tobytes() else answer(request)
    )
    outcomes = dict(connect(max_tries=3).stream(iter(digits[:4])))
    assert sorted(outcomes) == [0, 1, 2, 3]
    refused = outcomes.pop(1)
    assert isinstance(refused, ServerBusy)
    assert refused.message == "refused; tried 3 times"
    assert all(isinstance(outcome, Classification) for outcome in outcomes.values())
    assert len(server.requests) == 2


def test_item_of_a_stream_that_cannot_meet_its_deadline_is_not_tried_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(9, lambda: refusal(why="CANNOT_MEET_DEADLINE"))
    ((_, outcome),) = connect().stream([digits[0]])
    assert isinstance(outcome, CannotMeetDeadline)
    assert len(server.requests) == 0


def test_stream_that_is_left_tries_nothing_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    refuse = failing_first(9, lambda: refusal(seconds=PATIENCE_S / 2))
    server.answer = lambda request: (
        refuse(request) if request.pixels.data == digits[0].tobytes() else answer(request)
    )
    outcomes = connect().stream(iter(digits[:2]))
    assert next(outcomes)[0] == 1
    outcomes.close()  # type: ignore[attr-defined]
    assert server.streams_ended.acquire(timeout=PATIENCE_S)
    assert len(server.requests) == 0


def test_closing_a_client_ends_a_wait(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(9, lambda: refusal(seconds=PATIENCE_S))
    client = connect(timeout=4 * PATIENCE_S)
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(client.classify, digits[0])
        assert server.answered.acquire(timeout=PATIENCE_S)
        client.close()
        # Whether the refusal was there before the client was closed, or not.
        assert isinstance(asking.exception(PATIENCE_S / 2), ClientClosed | Cancelled)


def test_pauses_are_never_shorter_than_the_server_says_and_grow_by_chance() -> None:
    for chance, expected in ((0.0, [0.5] * 5), (0.5, [0.75, 1.0, 1.5, 2.5, 2.5])):
        tries = Tries(Deadline.after(60), 6, partial(float, chance))
        error = ServerBusy("full", retry_after_s=0.5)
        assert [tries.pause_s(error) for _ in range(5)] == expected
        with pytest.raises(ServerBusy, match="^full; tried 6 times$"):
            tries.pause_s(ServerBusy("full", retry_after_s=0.5))


def test_last_try_without_an_answer_keeps_the_message_of_the_refusal() -> None:
    tries = Tries(Deadline.after(60), 4)
    tries.pause_s(ServerBusy("full", retry_after_s=0.5))
    late = DeadlineExceeded("no answer")
    with pytest.raises(ServerBusy, match="^full; tried 2 times, the last one") as caught:
        tries.pause_s(late)
    assert caught.value.__cause__ is late


def test_backoff_without_pushback_ends_in_an_answer(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE))
    assert connect().classify(digits[0]).label == expected_label(digits[0])
    assert len(server.requests) == 2


def test_each_call_of_a_split_request_is_tried_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE, trailers=AT_ONCE))
    classification = connect(max_images_per_call=20).classify(digits)
    assert [one.label for one in classification] == [expected_label(one) for one in digits]
    assert len(server.requests) == 10


def test_largest_message_is_tried_again(connect: Connect, server: ScriptedServer) -> None:
    photo = np.random.default_rng(4).integers(0, 256, (1000, 1000, 3), np.uint8)
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE, trailers=AT_ONCE))
    assert connect().classify(photo).label == expected_label(photo)
    assert len(server.requests) == 2


def test_tries_end_after_four(connect: Connect, server: ScriptedServer, digits: Digits) -> None:
    server.answer = failing_first(9, refusal)
    with pytest.raises(ServerBusy, match="^refused; tried 4 times$"):
        connect().classify(digits[0])
    assert len(server.requests) == 4


def test_server_that_forbids_another_try_is_obeyed(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    pushback = [("grpc-retry-pushback-ms", "-1")]
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE, "draining", trailers=pushback))
    with pytest.raises(ServerUnavailable, match="draining"):
        connect().classify(digits[0])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INTERNAL, ServerFault),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
    ],
)
def test_what_will_fail_again_is_not_tried_again(
    connect: Connect,
    server: ScriptedServer,
    digits: Digits,
    code: grpc.StatusCode,
    kind: type[ConvserveError],
) -> None:
    server.answer = failing_first(1, lambda: Failure(code))
    with pytest.raises(kind):
        connect().classify(digits[0])
    assert len(server.requests) == 1


@contextmanager
def reserved_address() -> Iterator[str]:
    """A port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def test_absent_server_is_unavailable(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        client = connect(address)
        with pytest.raises(ServerUnavailable, match=rf"cannot connect to {address}: ") as caught:
            client.classify(digits[0])
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.code is UNAVAILABLE


def test_wait_for_ready_waits_for_an_absent_server(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        client = connect(address, wait_for_ready=True)
        with pytest.raises(DeadlineExceeded):
            client.classify(digits[0], timeout=0.2)
        late = ScriptedServer(address)
        assert client.classify(digits[0]).label == expected_label(digits[0])
        late.stop()


def test_client_survives_a_restart_of_the_server(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        client = connect(address, wait_for_ready=True)
        for _ in range(2):
            running = ScriptedServer(address)
            assert client.classify(digits[0]).label == expected_label(digits[0])
            running.stop()


def test_new_client_inherits_no_failed_connection(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        for _ in range(10):
            running = ScriptedServer(address)
            running.answer = failing_first(1, lambda: Failure(grpc.StatusCode.CANCELLED))
            client = connect(address)
            with pytest.raises(Cancelled):  # And not ServerUnavailable.
                client.classify(digits[0])
            client.close()
            running.stop()

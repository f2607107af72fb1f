import queue
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.rpc import error_details_pb2

from convserve import (
    Classification,
    Client,
    ClientClosed,
    DeadlineExceeded,
    InvalidRequest,
    ServerFault,
    ServerUnavailable,
    UnexpectedReply,
)
from convserve_protos import classifier_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import (
    PATIENCE_S,
    Failure,
    ScriptedServer,
    answer,
    expected_label,
    images_of,
)

Digits = npt.NDArray[np.uint8]
Messages = Iterator[classifier_pb2.StreamClassifyRequest]
Responses = Iterator[classifier_pb2.StreamClassifyResponse]


def label(outcome: object) -> str:
    assert isinstance(outcome, Classification)
    return outcome.label


def test_every_array_is_answered_with_its_number(connect: Connect, digits: Digits) -> None:
    outcomes = dict(connect().stream(iter(digits)))
    assert sorted(outcomes) == list(range(len(digits)))
    assert {number: label(outcome) for number, outcome in outcomes.items()} == {
        number: expected_label(digit) for number, digit in enumerate(digits)
    }


def test_no_arrays_give_no_outcomes(connect: Connect) -> None:
    assert list(connect().stream([])) == []


def test_answers_are_matched_by_id_and_given_as_they_come(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def backwards_by_four(messages: Messages) -> Responses:
        for first in messages:
            four = [first, next(messages), next(messages), next(messages)]
            yield from (server.stream_response(message) for message in reversed(four))

    server.answer_stream = backwards_by_four
    outcomes = list(connect(max_in_flight=4).stream(digits[:8]))
    assert [number for number, _ in outcomes] == [3, 2, 1, 0, 7, 6, 5, 4]
    for number, outcome in outcomes:
        assert label(outcome) == expected_label(digits[number])


def test_arrays_of_several_images_keep_together(connect: Connect, digits: Digits) -> None:
    outcomes = dict(connect().stream([digits[:3], digits[3], digits[4:9]], top_k=1))
    first, last = outcomes[0], outcomes[2]
    assert isinstance(first, Classification)
    assert isinstance(last, Classification)
    assert [one.label for one in first] == [expected_label(one) for one in digits[:3]]
    assert [one.label for one in last] == [expected_label(one) for one in digits[4:9]]
    assert last.probabilities.shape == (5, 1)


def test_failed_array_yields_its_error_and_the_stream_goes_on(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def second_fails(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        if request.id == "1":
            reason = error_details_pb2.ErrorInfo(
                reason="INTERNAL_FAULT", domain="convserve", metadata={"fault_id": "00ff00ff00ff"}
            )
            raise Failure(grpc.StatusCode.INTERNAL, "failed", [reason])
        return answer(request)

    server.answer = second_fails
    outcomes = dict(connect().stream(digits[:4]))
    error = outcomes[1]
    assert isinstance(error, ServerFault)
    assert error.fault_id == "00ff00ff00ff"
    assert [label(outcomes[number]) for number in (0, 2, 3)] == [
        expected_label(digits[number]) for number in (0, 2, 3)
    ]


def test_no_more_arrays_are_read_than_may_be_in_flight(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    read_so_far = 0
    three_here = threading.Event()
    given_back = 0
    most_out = 0

    def source() -> Iterator[Digits]:
        nonlocal read_so_far, most_out
        for digit in digits:
            read_so_far += 1
            most_out = max(most_out, read_so_far - given_back)
            yield digit

    def hold_back_three(messages: Messages) -> Responses:
        held = [server.stream_response(next(messages)) for _ in range(3)]
        three_here.set()
        yield from held
        yield from (server.stream_response(message) for message in messages)

    server.answer_stream = hold_back_three
    for _ in connect(max_in_flight=3).stream(source()):
        assert three_here.is_set()
        given_back += 1
    assert (read_so_far, given_back) == (100, 100)
    assert most_out == 3


def test_slow_source_holds_up_no_answer(server: ScriptedServer, digits: Digits) -> None:
    """Of AsyncClient the same is shown with a source that does not block its loop."""
    answered = threading.Event()

    def source() -> Iterator[Digits]:
        yield digits[0]
        assert answered.wait(PATIENCE_S)
        yield digits[1]

    numbers = []
    with Client(server.address, model="mnist") as client:
        for number, _ in client.stream(source()):
            answered.set()
            numbers.append(number)
    assert numbers == [0, 1]


@pytest.mark.parametrize("index", [0, 3])
def test_error_of_the_source_reaches_the_caller(
    connect: Connect, digits: Digits, index: int
) -> None:
    def source() -> Iterator[Digits]:
        yield from digits[:index]
        raise LookupError("no more film")

    with pytest.raises(LookupError, match="no more film"):
        list(connect().stream(source()))


def test_wrong_array_ends_the_stream_with_the_reason(connect: Connect, digits: Digits) -> None:
    with pytest.raises(InvalidRequest, match="float64"):
        list(connect().stream([digits[0], digits[1] / 255]))


def test_array_too_large_for_one_message_is_refused(connect: Connect, digits: Digits) -> None:
    with pytest.raises(InvalidRequest, match="at most 64 images .*, got 100 images"):
        list(connect().stream([digits]))


def test_failing_stream_raises(connect: Connect, server: ScriptedServer, digits: Digits) -> None:
    def break_after_one(messages: Messages) -> Responses:
        yield server.stream_response(next(messages))
        # With nothing on its way: where it meets the end of the call, grpc may lose the reason.
        list(messages)
        raise Failure(grpc.StatusCode.UNAVAILABLE, "draining")

    server.answer_stream = break_after_one
    outcomes = connect().stream(digits[:4])
    assert label(next(outcomes)[1]) == expected_label(digits[0])
    with pytest.raises(ServerUnavailable, match="draining"):
        list(outcomes)


def test_overdue_answer_raises(connect: Connect, server: ScriptedServer, digits: Digits) -> None:
    release = threading.Event()
    released: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def never_second(messages: Messages) -> Responses:
        yield server.stream_response(next(messages))
        released.put(release.wait(PATIENCE_S))

    server.answer_stream = never_second
    # Long enough for the first answer.
    outcomes = connect().stream(digits[:2], timeout=2.0)
    next(outcomes)
    with pytest.raises(DeadlineExceeded, match=r"within 2 s to item 1"):
        next(outcomes)
    release.set()
    assert released.get(timeout=PATIENCE_S)  # The client did not wait for the server.


def test_stream_may_last_longer_than_the_timeout_of_one_answer(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    ended = threading.Event()

    def last_word_late(messages: Messages) -> Responses:
        yield from (server.stream_response(message) for message in messages)
        assert not ended.wait(2.2)  # Longer than the timeout, with nothing unanswered.

    server.answer_stream = last_word_late
    assert len(list(connect().stream(digits[:2], timeout=2.0))) == 2


def test_answer_that_fits_no_request_is_refused(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def answer_twice(messages: Messages) -> Responses:
        for message in list(messages):
            response = server.stream_response(message)
            response.id = "0"
            yield response

    server.answer_stream = answer_twice
    with pytest.raises(UnexpectedReply, match="'0', which is not under way"):
        list(connect().stream(digits[:2]))


def test_server_that_ends_the_stream_with_items_unanswered_is_unavailable(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def answer_first(messages: Messages) -> Responses:
        yield server.stream_response(list(messages)[0])

    server.answer_stream = answer_first
    with pytest.raises(ServerUnavailable, match="with 1 items unanswered$"):
        list(connect().stream(digits[:2]))


def test_server_that_ends_the_stream_before_all_is_sent_is_unavailable(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def answer_first(messages: Messages) -> Responses:
        yield server.stream_response(next(messages))

    server.answer_stream = answer_first
    # One at a time: the last of them has not been sent when the server stops.
    outcomes = connect(max_in_flight=1).stream(digits[:3])
    assert next(outcomes)[0] == 0
    with pytest.raises(ServerUnavailable, match="and others not sent$"):
        list(outcomes)


def test_caller_that_stops_early_stops_the_source(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    read_so_far = 0

    def source() -> Iterator[Digits]:
        nonlocal read_so_far
        while True:
            read_so_far += 1
            yield digits[0]

    outcomes = connect(max_in_flight=2).stream(source())
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert server.streams_ended.acquire(timeout=PATIENCE_S)
    assert read_so_far <= 3


def test_images_of_a_stream_reach_the_server_whole(
    connect: Connect, server: ScriptedServer
) -> None:
    seen: list[bytes] = []

    def note(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        seen.append(images_of(request).tobytes())
        return answer(request)

    server.answer = note
    photo = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    list(connect().stream([photo[::2, ::2]]))
    assert seen == [photo[::2, ::2].tobytes()]


def test_closed_client_streams_no_more(connect: Connect, digits: Digits) -> None:
    client = connect()
    client.close()
    with pytest.raises(ClientClosed):
        next(client.stream(digits))

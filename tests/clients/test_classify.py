import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convserve import (
    Cancelled,
    Classification,
    ClientClosed,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
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
    expected_probability,
    images_of,
    model,
)

Digits = npt.NDArray[np.uint8]


def assert_answers(classification: Classification, images: Digits) -> None:
    assert [one.label for one in classification] == [expected_label(image) for image in images]
    assert [one.probability for one in classification] == pytest.approx(
        [expected_probability(image) for image in images], abs=1e-6
    )


def test_one_image_answers_like_its_result(connect: Connect, digits: Digits) -> None:
    classification = connect().classify(digits[0])
    assert len(classification) == 1
    assert classification.label == classification[0].label == expected_label(digits[0])
    assert classification.probability == pytest.approx(expected_probability(digits[0]))
    assert classification.model == "mnist"
    assert classification.version == 7
    assert classification.timings.queue_us == 100
    assert classification.timings.calls == 1
    assert classification.timings.total_us > 0


@pytest.mark.parametrize(
    "shape", [(28, 28), (28, 28, 1), (28, 28, 3), (5, 28, 28), (5, 28, 28, 1), (5, 20, 30, 3)]
)
def test_each_shape_reaches_the_server_as_nhwc(
    connect: Connect, server: ScriptedServer, shape: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    classification = connect().classify(pixels)
    sent = images_of(server.requests[0])
    assert sent.tobytes() == pixels.tobytes()
    assert sent.shape[1:3] == shape[-3:-1] if shape[-1] in (1, 3) else shape[-2:]
    assert_answers(classification, sent)


def test_wrong_pixels_are_refused_before_anything_is_sent(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    client = connect(model=None)
    with pytest.raises(InvalidRequest, match="float64"):
        client.classify(digits / 255)
    assert server.requests == []
    assert server.lists == 0


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(count=st.integers(1, 100), images_per_call=st.integers(1, 40), in_flight=st.integers(1, 6))
def test_split_request_answers_every_image_in_order(
    connect: Connect,
    server: ScriptedServer,
    digits: Digits,
    count: int,
    images_per_call: int,
    in_flight: int,
) -> None:
    server.requests.clear()
    client = connect(max_images_per_call=images_per_call, max_in_flight=in_flight)
    classification = client.classify(digits[:count])
    assert_answers(classification, digits[:count])
    assert max(request.pixels.count for request in server.requests) <= images_per_call
    assert classification.timings.calls == len(server.requests) == -(-count // images_per_call)


def test_order_holds_when_later_calls_finish_first(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    first = digits[:10].tobytes()
    others_done = threading.Semaphore(0)

    def first_last(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        if request.pixels.data == first:
            for _ in range(9):
                assert others_done.acquire(timeout=PATIENCE_S)
        else:
            others_done.release()
        return answer(request)

    server.answer = first_last
    client = connect(max_images_per_call=10, max_in_flight=2)
    assert_answers(client.classify(digits), digits)


def test_as_many_calls_as_allowed_are_in_flight_and_never_more(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    together = threading.Barrier(3)

    def wait_for_two_others(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        together.wait(PATIENCE_S)  # Breaks unless three calls are here at once.
        return answer(request)

    server.answer = wait_for_two_others
    client = connect(max_images_per_call=11, max_in_flight=3)
    assert_answers(client.classify(digits[:99]), digits[:99])
    assert server.most_in_flight == 3


def test_large_images_are_split_by_bytes(connect: Connect, server: ScriptedServer) -> None:
    photos = np.random.default_rng(3).integers(0, 256, (7, 30, 40, 3), np.uint8)
    client = connect(max_bytes_per_call=3 * 30 * 40 * 3 + 1)
    assert_answers(client.classify(photos), photos)
    assert sorted(request.pixels.count for request in server.requests) == [1, 3, 3]


def test_failing_call_cancels_the_others_and_starts_no_more(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    three_here = threading.Barrier(3)
    release = threading.Event()

    def third_fails(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        if three_here.wait(PATIENCE_S) == 2:
            raise Failure(grpc.StatusCode.INTERNAL, "the engine failed")
        assert release.wait(PATIENCE_S)
        return answer(request)

    server.answer = third_fails
    # No deadline shall do what cancelling must.
    client = connect(max_images_per_call=10, max_in_flight=3, timeout=3 * PATIENCE_S)
    with pytest.raises(Exception, match="the engine failed"):
        client.classify(digits)
    assert server.abandoned.acquire(timeout=PATIENCE_S)
    assert server.abandoned.acquire(timeout=PATIENCE_S)
    release.set()
    assert len(server.requests) == 3


def test_deadline_covers_the_whole_request(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    never = threading.Event()

    def take_a_while(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        assert not never.wait(0.1)  # Ten calls in turn are each in time, and together are not.
        return answer(request)

    server.answer = take_a_while
    client = connect(max_images_per_call=10, max_in_flight=1)
    with pytest.raises(DeadlineExceeded, match=r"no answer from 127.* within 0\.3 s"):
        client.classify(digits, timeout=0.3)
    assert len(server.requests) < 10


def test_deadline_of_the_client_holds_where_none_is_given(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    release = threading.Event()

    def hang(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        assert release.wait(PATIENCE_S)
        return answer(request)

    server.answer = hang
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        connect(timeout=0.2).classify(digits[0])
    release.set()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_timeout_that_is_none_is_refused(connect: Connect, digits: Digits, timeout: float) -> None:
    with pytest.raises(InvalidRequest, match="timeout: expected a number of seconds above 0"):
        connect().classify(digits[0], timeout=timeout)


def test_version_and_top_k_reach_the_server(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    classification = connect().classify(digits[:2], model="other", version=3, top_k=2)
    request = server.requests[0]
    assert (request.model, request.version, request.top_k) == ("other", 3, 2)
    assert classification.version == 3
    assert classification.probabilities.shape == classification.classes.shape == (2, 2)
    assert [one.label for one in classification] == [expected_label(one) for one in digits[:2]]
    best, second = classification[0].top()
    assert best.probability > second.probability
    assert [best.label] == [classification[0].label]


def test_label_reaches_the_server_in_place_of_a_version(
    connect: Connect, server: ScriptedServer, digits: npt.NDArray[np.uint8]
) -> None:
    asked: list[classifier_pb2.ClassifyRequest] = []

    def note(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        asked.append(request)
        return answer(request)

    server.answer = note
    client = connect()
    client.classify(digits[:2], label="stable")
    client.classify_images([b"file"], label="stable")
    list(client.stream([digits[0]], label="stable"))
    assert [request.version_label for request in asked] == ["stable"] * 3
    assert not any(request.HasField("version") for request in asked)


def test_label_beside_a_version_is_refused_before_anything_is_sent(
    connect: Connect, server: ScriptedServer, digits: npt.NDArray[np.uint8]
) -> None:
    client = connect()
    for ask in (
        lambda: client.classify(digits[0], version=3, label="stable"),
        lambda: client.classify_images(b"file", version=3, label="stable"),
        lambda: list(client.stream([digits[0]], version=3, label="stable")),
    ):
        with pytest.raises(InvalidRequest) as caught:
            ask()
        assert str(caught.value) == "label: expected none beside a version, got 'stable'"
    with pytest.raises(InvalidRequest, match="^label: expected a str, got 3$"):
        client.classify(digits[0], label=3)
    assert len(server.requests) == 0


def test_empty_label_is_none(
    connect: Connect, server: ScriptedServer, digits: npt.NDArray[np.uint8]
) -> None:
    connect().classify(digits[0], label="", version=3)
    assert (server.requests[0].version, server.requests[0].version_label) == (3, "")


def test_absent_version_and_top_k_stay_absent(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    connect().classify(digits[0])
    assert not server.requests[0].HasField("version")
    assert not server.requests[0].HasField("top_k")


@pytest.mark.parametrize(
    ("option", "value"), [("top_k", -1), ("top_k", 2**32), ("top_k", 1.5), ("version", -1)]
)
def test_number_that_the_protocol_cannot_carry_is_refused(
    connect: Connect, digits: Digits, option: str, value: object
) -> None:
    with pytest.raises(
        InvalidRequest, match=rf"{option}: expected an integer of 1 to .*, got {value}"
    ):
        connect().classify(digits[0], **{option: value})


def test_only_model_of_the_server_is_chosen_and_looked_up_once(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.models = [model("letters", 2), model("letters", 1)]
    client = connect(model=None)
    assert client.classify(digits[0]).model == "letters"
    assert client.classify(digits[1]).model == "letters"
    assert server.lists == 1


def test_no_model_at_all_says_so(connect: Connect, server: ScriptedServer, digits: Digits) -> None:
    server.models = []
    with pytest.raises(ModelNotFound, match="no models loaded"):
        connect(model=None).classify(digits[0])


def test_only_model_is_asked_for_again_once_it_is_gone(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def only_loaded_one(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        if request.model != server.models[0].name:
            raise Failure(grpc.StatusCode.NOT_FOUND, "there is letters")
        return answer(request)

    server.answer = only_loaded_one
    client = connect(model=None)
    assert client.classify(digits[0]).model == "mnist"
    server.models = [model("letters")]
    with pytest.raises(ModelNotFound, match="there is letters"):
        client.classify(digits[0])
    assert client.classify(digits[0]).model == "letters"


def test_failed_image_leaves_the_others_answered(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def third_image_fails(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        response = answer(request)
        error = Failure(grpc.StatusCode.INVALID_ARGUMENT, "not a JPEG").status
        response.results[2].CopyFrom(classifier_pb2.ImageResult(error=error))
        return response

    server.answer = third_image_fails
    classification = connect(max_images_per_call=4).classify(digits[:8])
    assert sorted(classification.errors) == [2, 6]
    good = [index for index in range(8) if index not in (2, 6)]
    assert [classification[index].label for index in good] == [
        expected_label(digits[index]) for index in good
    ]
    assert isinstance(classification[2].error, InvalidRequest)
    with pytest.raises(InvalidRequest, match="not a JPEG"):
        _ = classification[2].label


def test_switch_of_versions_between_calls_is_reported(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def newer_each_time(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        response = answer(request)
        response.version = len(server.requests)
        return response

    server.answer = newer_each_time
    classification = connect(max_images_per_call=4, max_in_flight=1).classify(digits[:8])
    assert classification.versions == (2, 1)
    assert classification.version == 2


def test_switch_of_labels_between_calls_is_refused(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def other_labels(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        response = answer(request)
        if len(server.requests) == 2:
            response.labels[0] = "zero"
        return response

    server.answer = other_labels
    with pytest.raises(UnexpectedReply, match="different labels"):
        connect(max_images_per_call=4, max_in_flight=1).classify(digits[:8])


def test_one_client_serves_many_threads(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    client = connect(max_images_per_call=7)
    with ThreadPoolExecutor(4) as threads:
        parts = [digits[start : start + 20] for start in range(0, 100, 20)]
        for part, classification in zip(parts, threads.map(client.classify, parts), strict=True):
            assert_answers(classification, part)


def test_closed_client_says_so(connect: Connect, digits: Digits) -> None:
    client = connect()
    client.classify(digits[0])
    client.close()
    for call in (lambda: client.classify(digits[0]), client.models, client.health):
        with pytest.raises(ClientClosed, match="is closed"):
            call()


@pytest.mark.parametrize("count", [1, 3])
def test_close_cancels_calls_under_way(
    connect: Connect, server: ScriptedServer, digits: Digits, count: int
) -> None:
    here, release = threading.Semaphore(0), threading.Event()

    def hang(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        here.release()
        assert release.wait(PATIENCE_S)
        return answer(request)

    server.answer = hang
    client = connect(max_images_per_call=1)
    with ThreadPoolExecutor(1) as thread:
        under_way = thread.submit(client.classify, digits[:count])
        for _ in range(count):
            assert here.acquire(timeout=PATIENCE_S)
        client.close()
        with pytest.raises(Cancelled):
            under_way.result(PATIENCE_S)
    release.set()

import threading

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

from convserve import BadImage, Classification, InvalidRequest
from convserve.pending_requests import Item
from convserve_protos import classifier_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import (
    BROKEN,
    PATIENCE_S,
    Failure,
    ScriptedServer,
    answer,
    broken_image,
    expected_label,
)

FILES = [f"file {index}".encode() * (index + 1) for index in range(40)]


def label_of(data: bytes) -> str:
    return expected_label(np.frombuffer(data, np.uint8))


def sizes(server: ScriptedServer) -> list[int]:
    return sorted(len(request.encoded.images) for request in server.requests)


def with_broken(*indices: int) -> list[bytes]:
    return [BROKEN + data if index in indices else data for index, data in enumerate(FILES)]


def test_one_file_answers_like_its_result(connect: Connect, server: ScriptedServer) -> None:
    classification = connect().classify_images(FILES[3], top_k=2, version=3)
    assert classification.label == label_of(FILES[3])
    assert classification.probabilities.shape == (1, 2)
    (request,) = server.requests
    assert list(request.encoded.images) == [FILES[3]]
    assert (request.version, request.top_k) == (3, 2)
    timings = classification.timings
    assert (timings.queue_us, timings.decode_us, timings.compute_us) == (100, 1000, 10)


@pytest.mark.parametrize("limits", [{"max_images_per_call": 7}, {"max_bytes_per_call": 500}])
def test_files_of_a_split_request_are_answered_in_order(
    connect: Connect, server: ScriptedServer, limits: dict[str, int]
) -> None:
    classification = connect(**limits).classify_images(FILES)
    assert [one.label for one in classification] == [label_of(data) for data in FILES]
    assert classification.timings.calls == len(server.requests) > 5
    assert classification.timings.decode_us == 1000 * len(server.requests)


def test_file_over_the_limit_of_a_call_goes_alone(connect: Connect, server: ScriptedServer) -> None:
    files = [b"ab", b"cd", b"x" * 100, b"ef"]
    classification = connect(max_bytes_per_call=10).classify_images(files)
    assert [one.label for one in classification] == [label_of(data) for data in files]
    assert sizes(server) == [1, 1, 2]


def test_only_file_that_is_broken_raises_with_its_reason(connect: Connect) -> None:
    with pytest.raises(BadImage, match=r"^the JPEG is truncated$") as caught:
        connect().classify_images(BROKEN)
    assert caught.value.reason == "truncated"
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(caught.value, InvalidRequest)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_broken_file_among_others_fails_alone(connect: Connect) -> None:
    classification = connect().classify_images(with_broken(0, 17))
    assert sorted(classification.errors) == [0, 17]
    assert classification[1].label == label_of(FILES[1])
    error = classification[17].error
    assert isinstance(error, BadImage)
    assert (error.reason, error.message) == ("truncated", "the JPEG is truncated")


@pytest.mark.parametrize("top_k", [None, 3])
def test_broken_file_alone_in_its_call_fails_no_other_call(
    connect: Connect, server: ScriptedServer, top_k: int | None
) -> None:
    client = connect(max_images_per_call=1, max_in_flight=3)
    classification = client.classify_images(with_broken(0, 17, 39), top_k=top_k)
    assert sizes(server) == [1] * 40
    assert sorted(classification.errors) == [0, 17, 39]
    assert classification.indices.tolist() == [
        -1 if index in (0, 17, 39) else int(label_of(data)) for index, data in enumerate(FILES)
    ]
    assert np.isnan(classification.probabilities[[0, 17, 39]]).all()
    assert (classification.versions, len(classification.labels)) == ((7,), 10)
    error = classification[0].error
    assert isinstance(error, BadImage)
    assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.parametrize(("top_k", "columns"), [(None, 0), (2, 2)])
def test_request_of_nothing_but_broken_files_in_calls_of_their_own(
    connect: Connect, top_k: int | None, columns: int
) -> None:
    client = connect(max_images_per_call=1)
    classification = client.classify_images([BROKEN, BROKEN + b"!"], top_k=top_k)
    assert sorted(classification.errors) == [0, 1]
    assert classification.probabilities.shape == (2, columns)
    assert classification.indices.tolist() == [-1, -1]
    assert (classification.model, classification.versions) == ("mnist", ())
    assert repr(classification) == "<Classification of 2 by mnist/?, 2 failed>"
    for read in (lambda: classification[0].label, lambda: classification.version):
        with pytest.raises(BadImage):
            read()


def test_other_failure_of_a_lone_file_fails_the_request(
    connect: Connect, server: ScriptedServer
) -> None:
    def wrong_model(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        if request.encoded.images[0] == FILES[2]:
            raise Failure(grpc.StatusCode.INVALID_ARGUMENT, "top_k: expected 1 to 10, got 11")
        return answer(request)

    server.answer = wrong_model
    with pytest.raises(InvalidRequest, match="top_k: expected 1 to 10") as caught:
        connect(max_images_per_call=1).classify_images(FILES[:4])
    assert not isinstance(caught.value, BadImage)


def test_status_of_a_whole_call_is_not_that_of_one_file(
    connect: Connect, server: ScriptedServer
) -> None:
    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise broken_image(1, "DAMAGED", "is damaged")

    server.answer = fail
    with pytest.raises(BadImage):
        connect(max_images_per_call=2).classify_images(FILES[:4])


@pytest.mark.parametrize("reason", ["NOT_A_PICTURE", "not-a-picture"])
def test_reason_is_one_word_however_it_is_written(
    connect: Connect, server: ScriptedServer, reason: str
) -> None:
    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise broken_image(0, reason, "looks like HTML")

    server.answer = fail
    with pytest.raises(BadImage, match="^looks like HTML$") as caught:
        connect().classify_images(FILES[0])
    assert caught.value.reason == "not-a-picture"


def test_reason_of_another_domain_is_no_bad_image(connect: Connect, server: ScriptedServer) -> None:
    info = error_details_pb2.ErrorInfo(domain="proxy.example", reason="truncated")

    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", [info])

    server.answer = fail
    with pytest.raises(InvalidRequest) as caught:
        connect().classify_images(FILES[0])
    assert type(caught.value) is InvalidRequest


@pytest.mark.parametrize(
    ("images", "field", "reason"),
    [
        (b"", "images", "expected the bytes of a picture file, .*, got a file of 0 bytes"),
        ([], "images", "got an empty list"),
        ([b"a", b""], "images[1]", "got a file of 0 bytes"),
        ("cat.jpg", "images", r"got str: pass Path\(\.\.\.\)"),
        ([b"a", "cat.jpg"], "images[1]", "got str: pass Path"),
        (bytearray(b"a"), "images", r"got bytearray: pass bytes\(\.\.\.\)"),
        (np.zeros((2, 2), np.uint8), "images", "got ndarray; pixels go to classify"),
        ([1, 2], "images[0]", "got int"),
        (None, "images", "got NoneType"),
    ],
)
def test_what_is_no_file_is_refused_before_anything_is_sent(
    connect: Connect, server: ScriptedServer, images: object, field: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        connect(model=None).classify_images(images)
    assert caught.value.violations[0].field == field
    assert (len(server.requests), server.lists) == (0, 0)


def test_files_given_as_pixels_are_refused_with_the_right_method(connect: Connect) -> None:
    for images in (b"\xff\xd8", [b"\xff\xd8", b"\xff\xd8\xff"]):
        with pytest.raises(InvalidRequest, match="got .S.*; picture files go to classify_images"):
            connect().classify(images)


def test_stream_accepts_files_and_pixels(connect: Connect, server: ScriptedServer) -> None:
    seen: list[str | None] = []

    def note(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        seen.append(request.WhichOneof("input"))
        return answer(request)

    server.answer = note
    digit = np.full((28, 28), 3, np.uint8)
    items: list[Item] = [
        FILES[0],
        [FILES[1], BROKEN, FILES[2]],
        (FILES[3],),
        digit,
        BROKEN,
        FILES[4],
    ]
    outcomes = dict(connect(max_in_flight=1).stream(items))
    assert seen == ["encoded", "encoded", "encoded", "pixels", "encoded", "encoded"]
    one, three, pixels, bad, last = (outcomes[index] for index in (0, 1, 3, 4, 5))
    assert isinstance(one, Classification)
    assert one.label == label_of(FILES[0])
    assert isinstance(three, Classification)
    assert [index for index, each in enumerate(three) if each.error] == [1]
    assert isinstance(pixels, Classification)
    assert pixels.label == expected_label(digit)
    assert isinstance(bad, BadImage)
    assert bad.reason == "truncated"
    assert isinstance(last, Classification)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"", "images: expected .*, got a file of 0 bytes"),
        ([b"a", 1], r"images\[1\]: .* got int"),
        ([b"a"] * 65, "images: expected at most 64 images of this size .*, got 65 images"),
    ],
)
def test_wrong_files_end_a_stream_with_the_reason(
    connect: Connect, item: Item, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        list(connect().stream([item]))


def test_lone_broken_file_cancels_no_call_under_way(
    connect: Connect, server: ScriptedServer
) -> None:
    broken_answered = threading.Event()

    def after_the_broken(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        if request.encoded.images[0] == BROKEN:
            broken_answered.set()
        else:
            assert broken_answered.wait(PATIENCE_S)
        return answer(request)

    server.answer = after_the_broken
    client = connect(max_images_per_call=1, max_in_flight=2)
    classification = client.classify_images([FILES[0], BROKEN, FILES[1]])
    assert [one.error is None for one in classification] == [True, False, True]

"""A row that is not finite is a fault of ours for that image, and never an answer."""

import itertools
import logging
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2

from convserve_imaging.errors import DamagedPictureError
from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batcher import Batcher
from convserve_server.core.descriptions import ModelDescription, signature_of_images
from convserve_server.core.errors import BadImage, ServeError
from convserve_server.engines.base import Pixels, Probabilities
from convserve_server.protocols.base import Call, Caller, Failure
from convserve_server.protocols.convserve_v1.answers import FilesReply
from convserve_server.protocols.grpc_errors import failure_status

PATIENCE_S = 60.0
#: Pixels of an image whose row is damaged, and what is in that row.
DAMAGED = {253: np.nan, 254: np.inf, 255: -np.inf}


def run(images: Sequence[Pixels]) -> Probabilities:
    """Rows of three classes that begin with the pixel of the image / 1000."""
    first = np.concatenate(images).reshape(-1)
    rows = np.zeros((len(first), 3), np.float32)
    rows[:, 0] = first / 1000
    for pixel, value in DAMAGED.items():
        rows[first == pixel, 1] = value
    return rows


@pytest.fixture(params=[64, 2])
def batcher(request: pytest.FixtureRequest) -> Iterator[Batcher]:
    """One that runs requests whole, and one that cuts them."""
    batcher = Batcher(run, max_batch=request.param, max_queue=100)
    yield batcher
    batcher.close()
    assert batcher.join(PATIENCE_S)


MODEL = ModelDescription(
    "digits", 1, ("a", "b", "c"), (1, 1, 1), 3, "FakeExecutionProvider", b"",
    signature_of_images((1, 1, 1), 3), 64,
)  # fmt: skip


class OpenCall(Call):
    """A call that is always open, and keeps its answers."""

    def __init__(self) -> None:
        super().__init__("/test.Service/Method", b"", None, "connection")
        self.tracker = self
        self.answers: queue.SimpleQueue[bytes | Failure] = queue.SimpleQueue()

    def caller(self) -> Caller:
        return Caller("peer", ())

    def send(self, payload: bytes) -> bool:
        self.answers.put(payload)
        return True

    def send_failure(self, failure: Failure) -> None:
        self.answers.put(failure)

    def claim(self, call: Call) -> bool:
        assert call is self
        return True

    def ended(self, call: Call, failure: Failure, *, answered: bool) -> None:
        assert answered

    def all_answered(self, calls: Sequence[Call]) -> None:
        assert calls == [self]


def classify(
    batcher: Batcher,
    pixels: Sequence[int],
    top_k: int | None = None,
    failures: Mapping[int, ServeError] | None = None,
    *,
    return_pixels: bool = False,
) -> pb.ClassifyResponse | Failure:
    """The answer to images of one pixel each."""
    call = OpenCall()
    failures = failures or {}
    request = pb.ClassifyRequest(id="7", top_k=top_k, return_pixels=return_pixels)
    reply = FilesReply(call, request)
    reply.begin(MODEL)
    images = np.array(pixels, np.uint8).reshape(-1, 1, 1, 1)
    indices = (index for index in itertools.count() if index not in failures)
    reply.decoded(failures, dict(zip(indices, images, strict=False)), 0.0, 0.0)
    batcher.submit(BatchRequest(images, None, reply.finish))
    answer = call.answers.get(timeout=PATIENCE_S)
    return answer if isinstance(answer, Failure) else pb.ClassifyResponse.FromString(answer)


def outcomes(response: pb.ClassifyResponse | Failure) -> list[float | int]:
    """Of each image the first probability * 1000, or the negative code of its error."""
    assert isinstance(response, pb.ClassifyResponse)
    return [
        -result.error.code
        if result.HasField("error")
        else round(result.prediction.probabilities[0] * 1000)
        for result in response.results
    ]


@pytest.mark.parametrize("pixel", DAMAGED)
@pytest.mark.parametrize("top_k", [None, 2])
def test_only_image_with_a_damaged_row_fails_the_call(
    batcher: Batcher, pixel: int, top_k: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    fault = classify(batcher, [pixel], top_k)
    assert isinstance(fault, Failure)
    assert fault.code == code_pb2.INTERNAL
    info = error_details_pb2.ErrorInfo()
    assert failure_status(fault).details[0].Unpack(info)
    assert info.reason == "INTERNAL_FAULT"
    id_ = info.metadata["fault_id"]
    assert id_
    assert id_ in fault.message
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert id_ in record.getMessage()


@pytest.mark.parametrize("top_k", [None, 3])
def test_image_with_a_damaged_row_fails_alone(batcher: Batcher, top_k: int | None) -> None:
    response = classify(batcher, [10, 253, 30, 254, 255, 60], top_k)
    internal = -code_pb2.INTERNAL
    assert outcomes(response) == [10, internal, 30, internal, internal, 60]
    assert isinstance(response, pb.ClassifyResponse)
    assert response.id == "7"


def test_images_that_were_refused_before_keep_their_index_and_reason(batcher: Batcher) -> None:
    bad = BadImage(1, DamagedPictureError("the JPEG is damaged"))
    response = classify(batcher, [10, 253, 30], failures={1: bad})
    assert outcomes(response) == [10, -code_pb2.INVALID_ARGUMENT, -code_pb2.INTERNAL, 30]


@pytest.mark.parametrize("top_k", [None, 1])
def test_pixels_are_those_of_their_row_whatever_failed_beside_it(
    batcher: Batcher, top_k: int | None
) -> None:
    bad = BadImage(0, DamagedPictureError("the JPEG is damaged"))
    response = classify(batcher, [10, 253, 30], top_k, {0: bad}, return_pixels=True)
    assert isinstance(response, pb.ClassifyResponse)
    pixels = [result.prediction.pixels for result in response.results]
    assert pixels == [b"", bytes([10]), b"", bytes([30])]


def test_those_who_share_a_batch_with_a_damaged_row_get_theirs() -> None:
    replies: dict[int, Answer | ServeError] = {}
    held: list[BatchRequest] = [
        BatchRequest(np.full((1, 1, 1, 1), pixel, np.uint8), None, partial_reply(replies, pixel))
        for pixel in (1, 253, 2)
    ]
    batcher = Batcher(run, max_batch=3, max_queue=10, max_delay_s=PATIENCE_S)
    for request in held:
        batcher.submit(request)
    batcher.close()
    assert batcher.join(PATIENCE_S)
    damaged = {
        pixel: reply.damaged for pixel, reply in replies.items() if isinstance(reply, Answer)
    }
    assert damaged == {1: False, 253: True, 2: False}


def partial_reply(
    replies: dict[int, Answer | ServeError], pixel: int
) -> Callable[[Answer | ServeError], None]:
    return lambda outcome: replies.__setitem__(pixel, outcome)


def test_large_finite_rows_are_no_damage() -> None:
    def large(images: Sequence[Pixels]) -> Probabilities:
        return np.full((len(images[0]), 3), 1e30, np.float32)

    batcher = Batcher(large, max_batch=4, max_queue=10)
    outcome: queue.SimpleQueue[Answer | ServeError] = queue.SimpleQueue()
    batcher.submit(BatchRequest(np.zeros((2, 1, 1, 1), np.uint8), None, outcome.put))
    answer = outcome.get(timeout=PATIENCE_S)
    assert isinstance(answer, Answer)
    assert not answer.damaged
    batcher.close()

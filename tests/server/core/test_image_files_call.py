"""Images that come as files: decoded beside the engine, each failing or answered by itself."""

import gc
import io
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import cast

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2
from PIL import Image

from convserve_imaging.digits import centre
from convserve_imaging.photos import decode
from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_request import BatchRequest, Outcome
from convserve_server.core.decode_pool import DecodePool, Pixels
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import QueueFull, ServeError
from convserve_server.core.image_files_call import ImageFilesCall
from convserve_server.core.jobs import Priority
from convserve_server.core.models import ModelVersion
from convserve_server.core.repository import Repository, Work
from convserve_server.process.local_control import LocalControl
from convserve_server.telemetry.observer import NO_OBSERVER
from tests.bundles import PHOTO_SHAPE
from tests.jpegs import jpeg_of
from tests.server.conftest import SOON_S, WAIT_S, Serve, Served, answers
from tests.server.transports.test_conformance import detail, failure, until

HEIGHT, WIDTH, _ = PHOTO_SHAPE


def request_of(*files: bytes, **fields: object) -> pb.ClassifyRequest:
    encoded = pb.EncodedImages(images=files)
    return pb.ClassifyRequest(**{"model": "colours", "encoded": encoded, **fields})  # type: ignore[arg-type]


def error_info(result: pb.ImageResult) -> error_details_pb2.ErrorInfo:
    assert result.error.code == code_pb2.INVALID_ARGUMENT
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in result.error.details)
    assert info.domain == "convserve"
    return info


class HeldDecoder:
    """Stands for a model's decoder: lets each picture in, and out when the test says so."""

    def __init__(self, served: Served) -> None:
        model = served.worker.repository.get("colours", None)
        assert model.decode is not None
        self._decode = model.decode
        self.entered: queue.Queue[bytes] = queue.Queue()
        self.gate = threading.Event()
        object.__setattr__(model, "decode", self)  # ModelVersion is frozen

    def __call__(self, data: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        self.entered.put(data)
        assert self.gate.wait(WAIT_S)
        return self._decode(data)


def test_jpegs_are_answered_in_order(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    files = [jpeg_of(colour) for colour in ("blue", "red", "green", "red")]
    response = served.classify(request_of(*files, id="abc")).result()
    assert answers(response) == [2, 0, 1, 0]
    assert (response.id, response.model, response.version) == ("abc", "colours", 1)
    assert list(response.labels) == ["red", "green", "blue"]
    assert response.timings.decode_us > 0


def test_engine_gets_the_very_pixels_that_imaging_makes(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    files = [jpeg_of("red", (500, 375)), jpeg_of("blue", (90, 300))]
    served.classify(request_of(*files)).result()
    (batch,) = served.engine.seen
    assert np.array_equal(batch, [decode(data, HEIGHT, WIDTH) for data in files])


def test_five_broken_of_sixty_four_fail_alone_and_in_order(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    colours = ["red", "green", "blue", "green"] * 16
    files = [jpeg_of(colour, seed=index) for index, colour in enumerate(colours)]
    whole = files[0]
    broken = {
        0: (whole[: len(whole) // 2], "TRUNCATED", "the JPEG is truncated"),
        17: (b"\x89PNG\r\n\x1a\n" + whole, "NOT_A_PICTURE", "looks like a PNG"),
        18: (b"", "NOT_A_PICTURE", "looks like nothing"),
        40: (_with_size(whole, 65500, 65500), "TOO_LARGE", "65500 x 65500 pixels"),
        63: (whole[:-400] + bytes(350) + whole[-50:], "TRUNCATED", "the JPEG is truncated"),
    }
    for index, (data, _, _) in broken.items():
        files[index] = data
    response = served.classify(request_of(*files)).result()
    assert len(response.results) == 64
    for index, result in enumerate(response.results):
        if index in broken:
            _, reason, message = broken[index]
            assert result.WhichOneof("outcome") == "error"
            assert error_info(result).reason == reason
            assert result.error.message.startswith(f"encoded.images[{index}]: ")
            assert message in result.error.message
        else:
            best = int(np.argmax(result.prediction.probabilities))
            assert response.labels[best] == colours[index]
    assert sum(len(batch) for batch in served.engine.seen) == 59


def _with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The file with other dimensions in its frame header."""
    frame = jpeg.index(b"\xff\xc0")
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return jpeg[: frame + 5] + size + jpeg[frame + 9 :]


def test_top_k_with_a_broken_image(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    files = [b"no", jpeg_of("green"), b"no", jpeg_of("blue")]
    response = served.classify(request_of(*files, top_k=1)).result()
    outcomes = [result.WhichOneof("outcome") for result in response.results]
    assert outcomes == ["error", "prediction", "error", "prediction"]
    found = [list(result.prediction.classes) for result in response.results]
    assert found == [[], [1], [], [2]]


@pytest.mark.parametrize("fields", [{}, {"top_k": 2}], ids=["all classes", "top 2"])
def test_pixels_that_the_model_has_seen_are_in_the_answer(
    serve: Serve, front: str, fields: dict[str, object]
) -> None:
    served = serve(front, photos=True)
    files = [jpeg_of("green", (90, 300)), b"no", jpeg_of("blue")]
    request = request_of(*files, return_pixels=True, **fields)
    unary = served.classify(request).result()
    outgoing = iter([pb.StreamClassifyRequest(request=request)])
    (streamed,) = served.stub.StreamClassify(outgoing, timeout=WAIT_S)
    for response in (unary, streamed.response):
        good, bad, other = response.results
        assert good.prediction.pixels == decode(files[0], HEIGHT, WIDTH).tobytes()
        assert bad.WhichOneof("outcome") == "error"
        assert other.prediction.pixels == decode(files[2], HEIGHT, WIDTH).tobytes()
        assert len(good.prediction.probabilities) == fields.get("top_k", 3)


def test_pixels_are_not_in_an_answer_that_need_not_have_them(serve: Serve, front: str) -> None:
    response = serve(front, photos=True).classify(request_of(jpeg_of("red"), b"no")).result()
    assert response.results[0].prediction.pixels == b""


def test_pixels_of_pixels_are_refused(serve: Serve, front: str) -> None:
    pixels = pb.Pixels(count=1, height=28, width=28, channels=1, data=bytes(28 * 28))
    request = pb.ClassifyRequest(model="mnist", pixels=pixels, return_pixels=True)
    error = failure(serve(front).classify(request).result)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "return_pixels: expected files, got pixels"
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "return_pixels"


def test_all_broken_of_several_are_answered_without_the_engine(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    response = served.classify(request_of(b"a", b"b")).result()
    assert [error_info(result).reason for result in response.results] == ["NOT_A_PICTURE"] * 2
    assert list(response.labels) == ["red", "green", "blue"]
    assert served.engine.seen == []


def test_the_only_image_broken_fails_the_call(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    error = failure(lambda: served.classify(request_of(b"<html>")).result())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "encoded.images[0]: not a JPEG: it looks like HTML"
    violation = detail(error, error_details_pb2.BadRequest).field_violations[0]
    assert violation.field == "encoded.images[0]"
    assert detail(error, error_details_pb2.ErrorInfo).reason == "NOT_A_PICTURE"


@pytest.mark.parametrize("count", [0, 3])
def test_number_of_files_is_bounded_before_any_is_decoded(
    serve: Serve, front: str, count: int
) -> None:
    served = serve(front, photos=True, max_images=2)
    decoder = HeldDecoder(served)
    error = failure(lambda: served.classify(request_of(*[jpeg_of("red")] * count)).result())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"encoded.images: expected 1 to 2, got {count}"
    assert decoder.entered.empty()


def test_pixel_limit_is_a_setting(serve: Serve, front: str) -> None:
    served = serve(front, photos=True, max_pixels=240 * 180 - 1)
    error = failure(lambda: served.classify(request_of(jpeg_of("red"))).result())
    assert error.details() == (
        "encoded.images[0]: the JPEG has 240 x 180 pixels; expected at most 43,199"
    )


def test_unknown_model_is_refused_before_any_file_is_decoded(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    decoder = HeldDecoder(served)
    error = failure(lambda: served.classify(request_of(b"x", model="dogs")).result())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert decoder.entered.empty()


def test_raw_pixels_are_taken_too(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    image = decode(jpeg_of("green"), HEIGHT, WIDTH)
    pixels = pb.Pixels(count=1, height=HEIGHT, width=WIDTH, channels=3, data=image.tobytes())
    response = served.classify(pb.ClassifyRequest(model="colours", pixels=pixels)).result()
    assert answers(response) == [1]
    assert response.timings.decode_us == 0


def test_decoding_goes_on_while_the_engine_runs(serve: Serve, front: str) -> None:
    served = serve(front, photos=True, decode_threads=1)
    served.engine.hold()
    first = served.classify(request_of(jpeg_of("red")))
    served.engine.wait_entered()
    second = served.classify(request_of(jpeg_of("blue")))
    batcher = served.worker.repository.get("colours", None).batcher
    # It waits for the engine, decoded, while the engine is still at the first.
    until(lambda: batcher.waiting == 1)
    served.engine.release()
    assert answers(first.result()) + answers(second.result()) == [0, 2]


def test_full_decode_queue_is_resource_exhausted_and_says_when_to_retry(
    serve: Serve, front: str
) -> None:
    served = serve(front, photos=True, decode_threads=1, max_queue=2)
    decoder = HeldDecoder(served)
    pool = served.worker._decoding
    busy = served.classify(request_of(jpeg_of("red")))
    decoder.entered.get(timeout=WAIT_S)
    waiting = served.classify(request_of(jpeg_of("red"), jpeg_of("blue")))
    until(lambda: pool.waiting == 2)
    error = failure(lambda: served.classify(request_of(jpeg_of("red"))).result())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 images wait, 1 more exceed the limit of 2" in (error.details() or "")
    assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToMicroseconds() > 0
    decoder.gate.set()
    assert answers(busy.result()) + answers(waiting.result()) == [0, 0, 2]
    assert pool.waiting == 0


def test_images_that_wait_for_the_engine_fill_the_queue_too(serve: Serve, front: str) -> None:
    served = serve(front, photos=True, max_queue=2)
    batcher = served.worker.repository.get("colours", None).batcher
    served.engine.hold()
    calls = [served.classify(request_of(jpeg_of("red")))]
    served.engine.wait_entered()
    calls.append(served.classify(request_of(jpeg_of("red"), jpeg_of("blue"))))
    until(lambda: batcher.waiting == 2)
    decoder = HeldDecoder(served)
    error = failure(lambda: served.classify(request_of(jpeg_of("red"))).result())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert decoder.entered.empty()
    served.engine.release()
    assert [answers(call.result()) for call in calls] == [[0], [0, 2]]


def test_cancelled_call_is_not_decoded(serve: Serve, front: str) -> None:
    served = serve(front, photos=True, decode_threads=1)
    decoder = HeldDecoder(served)
    pool = served.worker._decoding
    busy = served.classify(request_of(jpeg_of("red")))
    decoder.entered.get(timeout=WAIT_S)
    left = served.classify(request_of(*[jpeg_of("blue")] * 5))
    until(lambda: pool.waiting == 5)
    left.cancel()
    until(lambda: pool.waiting == 0)
    decoder.gate.set()
    assert answers(busy.result()) == [0]
    assert answers(served.classify(request_of(jpeg_of("green"))).result()) == [1]
    assert decoder.entered.qsize() == 1


def test_call_cancelled_after_decoding_is_not_computed(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    batcher = served.worker.repository.get("colours", None).batcher
    served.engine.hold()
    first = served.classify(request_of(jpeg_of("red")))
    served.engine.wait_entered()
    left = served.classify(request_of(jpeg_of("blue")))
    until(lambda: batcher.waiting == 1)
    left.cancel()
    until(lambda: batcher.waiting == 0)
    served.engine.release()
    assert answers(first.result()) == [0]
    assert answers(served.classify(request_of(jpeg_of("green"))).result()) == [1]
    assert [len(batch) for batch in served.engine.seen] == [1, 1]


def test_deadline_that_passes_in_the_decode_queue_costs_no_decoding(serve: Serve) -> None:
    served = serve("native", photos=True, decode_threads=1)
    decoder = HeldDecoder(served)
    busy = served.classify(request_of(jpeg_of("red")))
    decoder.entered.get(timeout=WAIT_S)
    late = failure(lambda: served.classify(request_of(jpeg_of("blue")), timeout_s=SOON_S).result())
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The server hears of it after the client.
    until(lambda: served.worker._decoding.waiting == 0)
    decoder.gate.set()
    assert answers(busy.result()) == [0]
    assert answers(served.classify(request_of(jpeg_of("green"))).result()) == [1]
    assert decoder.entered.qsize() == 1


def test_fault_of_the_decoder_is_internal_and_hits_only_its_call(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    model = served.worker.repository.get("colours", None)
    assert model.decode is not None
    whole: Callable[[bytes], object] = model.decode

    def faulty(data: bytes) -> object:
        if data == b"fault":
            raise MemoryError("no memory")
        return whole(data)

    object.__setattr__(model, "decode", faulty)
    request = request_of(jpeg_of("red"), b"fault", jpeg_of("red"))
    error = failure(lambda: served.classify(request).result())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "no memory" not in (error.details() or "")
    assert answers(served.classify(request_of(jpeg_of("blue"))).result()) == [2]
    assert served.worker._decoding.waiting == 0


def test_version_unloaded_while_decoding_is_followed_by_its_successor(serve: Serve) -> None:
    served = serve(photos=True, decode_threads=1, scan_s=3600.0)
    decoder = HeldDecoder(served)
    call = served.classify(request_of(jpeg_of("green")))
    decoder.entered.get(timeout=WAIT_S)
    bundle = served.models / "colours" / "1"
    bundle.rename(served.models / "colours" / "2")
    control = served.worker.control
    assert isinstance(control, LocalControl)
    control.scan()
    decoder.gate.set()
    response = call.result()
    assert (response.version, answers(response)) == (2, [1])


def _drawing(format_: str) -> bytes:
    sheet = np.full((60, 40), 255, np.uint8)
    sheet[10:50, 18:23] = 0
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format_)
    return file.getvalue()


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_digits_come_as_files_too_and_are_centred(serve: Serve, front: str, format_: str) -> None:
    served = serve(front)
    data = _drawing(format_)
    served.classify(request_of(data, model="mnist")).result()
    (batch,) = served.engine.seen
    assert np.array_equal(batch, centre(data)[np.newaxis])


def test_digits_of_other_formats_or_blank_say_why(serve: Serve, front: str) -> None:
    served = serve(front)
    blank = io.BytesIO()
    Image.new("L", (30, 30), 255).save(blank, "PNG")
    request = request_of(_drawing("GIF"), blank.getvalue(), model="mnist")
    results = served.classify(request).result().results
    assert [error_info(result).reason for result in results] == ["NOT_A_PICTURE", "BLANK"]
    assert "looks like a GIF" in results[0].error.message


def test_files_on_a_stream_are_answered_each_by_its_id(serve: Serve, front: str) -> None:
    served = serve(front, photos=True)
    requests = [
        request_of(jpeg_of("green"), id="good"),
        request_of(b"no", id="bad"),
        request_of(b"no", jpeg_of("red"), id="both"),
    ]
    outgoing = (pb.StreamClassifyRequest(request=request) for request in requests)
    got = {reply.id: reply for reply in served.stub.StreamClassify(outgoing, timeout=WAIT_S)}
    assert answers(got["good"].response) == [1]
    assert got["bad"].error.code == code_pb2.INVALID_ARGUMENT
    assert [r.WhichOneof("outcome") for r in got["both"].response.results] == [
        "error",
        "prediction",
    ]


class MadeUp:
    """The model, the repository and the answer of a call, made up; counts what it is answered."""

    def __init__(self, waiting: int = 0) -> None:
        self.batcher = SimpleNamespace(
            model="colours/1", waiting=waiting, max_queue=4, max_wait_s=0.0
        )
        self.observer = NO_OBSERVER
        self.priority = Priority.INTERACTIVE
        self.watch = None
        self.description = SimpleNamespace(classes=3)
        self.decode = partial(decode, height=HEIGHT, width=WIDTH)
        self.outcomes: queue.Queue[object] = queue.Queue()
        self.work: list[BatchRequest] = []

    def begin(self, model: ModelDescription) -> None:
        assert model.classes == 3

    def decoded(
        self,
        failures: Mapping[int, ServeError],
        images: Mapping[int, Pixels],
        wait_s: float,
        decode_s: float,
    ) -> None:
        assert not failures

    def finish(self, outcome: Outcome) -> None:
        self.outcomes.put(outcome)

    def enqueue(
        self, work: Work, model: ModelVersion, request: BatchRequest, *, admitted: bool
    ) -> bool:
        assert admitted
        self.work.append(request)
        self.outcomes.put(None)
        return True

    def cancel(self, request: BatchRequest) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(
    ("data", "waiting"),
    [(jpeg_of("red"), 4), (b"no picture", 0), (jpeg_of("red"), 0)],
    ids=["queue full", "damaged", "in the queue"],
)
def test_files_are_free_when_they_are_refused_or_decoded(data: bytes, waiting: int) -> None:
    """Without a garbage collection, for which megabytes count no more than bytes."""
    data = bytes(bytearray(data))  # one that nobody else has
    pool = DecodePool(1, 4, 10**6)
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(data)
        made_up = MadeUp(waiting)
        model, repository = cast("ModelVersion", made_up), cast("Repository", made_up)
        call = ImageFilesCall(
            "colours", None, [data], None, "connection", None, made_up, repository, pool
        )
        if waiting:
            with pytest.raises(QueueFull) as caught:
                call.start(model)
            caught.value.with_traceback(None)
            del caught
        else:
            call.start(model)
            made_up.outcomes.get(timeout=WAIT_S)
        if not made_up.work:
            del call
        until(lambda: sys.getrefcount(data) == before)
    finally:
        gc.enable()
        pool.close()

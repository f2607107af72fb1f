"""Photographs as files, through a whole server. Linux: reads /proc."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convserve_imaging.errors import PictureError
from convserve_imaging.jpeg_pixels import MAX_DECODER_BYTES
from convserve_imaging.photos import decode
from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.bundles import PHOTO_SHAPE, write_photo_bundle
from tests.jpegs import jpeg_of, odd_files
from tests.system.conftest import WAIT_S, ServerProcess, StartServer

HEIGHT, WIDTH, _ = PHOTO_SHAPE


def encoded(*files: bytes) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(model="colours", encoded=pb.EncodedImages(images=files))


def from_pixels(data: bytes) -> pb.ClassifyRequest:
    """The same picture, decoded here."""
    pixels = decode(data, HEIGHT, WIDTH).tobytes()
    sent = pb.Pixels(count=1, height=HEIGHT, width=WIDTH, channels=3, data=pixels)
    return pb.ClassifyRequest(model="colours", pixels=sent)


def fault(data: bytes) -> PictureError | None:
    """Why a file cannot be decoded; None if it can."""
    try:
        decode(data, HEIGHT, WIDTH)
    except PictureError as error:
        return error
    return None


def peak_kib(server: ServerProcess) -> int:
    """The largest resident memory that a worker has had so far."""
    peaks = []
    for pid in server.worker_pids():
        status = Path(f"/proc/{pid}/status").read_text()
        peaks += [int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line]
    return max(peaks)


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_every_odd_file_gets_its_answer_or_reason_and_none_harms_the_server(
    models: Path, start_server: StartServer, front: str
) -> None:
    files = list(odd_files())
    write_photo_bundle(models)
    server = start_server("--front", front)
    address = server.wait_until_serving()
    workers = server.worker_pids()
    with grpc.insecure_channel(address) as channel:
        stub: Any = ClassifierStub(channel)
        stub.Classify(encoded(jpeg_of("red"), jpeg_of("blue")), timeout=WAIT_S)
        before_kib = peak_kib(server)
        answered = refused = 0
        for name, _, data in files:
            error = fault(data)
            if error is not None:
                refused += 1
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Classify(encoded(data), timeout=WAIT_S)
                assert isinstance(caught.value, grpc.Call)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
                assert caught.value.details() == f"encoded.images[0]: {error}", name
            else:
                answered += 1
                expected = stub.Classify(from_pixels(data), timeout=WAIT_S).results[0].prediction
                found = stub.Classify(encoded(data), timeout=WAIT_S).results[0].prediction
                assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5), name
        assert answered >= 100
        assert refused >= 100
        assert server.worker_pids() == workers
        assert peak_kib(server) - before_kib < MAX_DECODER_BYTES // 1024
    assert server.terminate() == 0


def test_batch_of_all_odd_files_has_a_result_for_each(
    models: Path, start_server: StartServer
) -> None:
    files = [data for _, _, data in odd_files()]
    write_photo_bundle(models)
    server = start_server("--max-images", "1000")
    with grpc.insecure_channel(server.wait_until_serving()) as channel:
        stub: Any = ClassifierStub(channel)
        response = stub.Classify(encoded(*files), timeout=WAIT_S)
    assert len(response.results) == len(files)
    for data, result in zip(files, response.results, strict=True):
        if (error := fault(data)) is not None:
            assert result.error.message.endswith(str(error))
        else:
            assert len(result.prediction.probabilities) == 3


def test_server_at_work_on_photographs_ends_in_good_order(
    models: Path, start_server: StartServer
) -> None:
    write_photo_bundle(models)
    server = start_server("--workers", "1")
    options = [("grpc.enable_retries", 0)]
    with grpc.insecure_channel(server.wait_until_serving(), options=options) as channel:
        stub: Any = ClassifierStub(channel)
        colours = ["red", "green", "blue"]
        files = [jpeg_of(colour, (640, 480)) for colour in colours]
        stub.Classify(encoded(*files), timeout=WAIT_S)
        calls = [stub.Classify.future(encoded(files[n % 3]), timeout=WAIT_S) for n in range(300)]
        calls[0].result()
        assert server.terminate() == 0
        right = 0
        for number, call in enumerate(calls):
            if call.exception() is not None:
                assert call.code() is grpc.StatusCode.UNAVAILABLE
                continue
            row = call.result().results[0].prediction.probabilities
            assert int(np.argmax(row)) == number % 3
            right += 1
    assert right > 0

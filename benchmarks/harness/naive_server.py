"""The baseline: what one writes in an afternoon, grpcio with a thread pool and no batching.

    python -m benchmarks.harness.naive_server models/mnist/1/model.onnx

Speaks convserve.v1.Classifier/Classify on a free port, which it prints as JSON. Photographs are
decoded in the handler, by Pillow or as Convserve does it.
"""

import argparse
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from convserve_imaging import photos
from convserve_protos import classifier_pb2 as pb
from convserve_protos import classifier_pb2_grpc

Decode = Callable[[bytes, int, int], NDArray[np.uint8]]


def decode(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """A file's pixels in the size of the model: uint8 [height, width, 3], RGB."""
    with Image.open(io.BytesIO(data)) as picture:
        resized = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


class Classifier(classifier_pb2_grpc.ClassifierServicer):
    """Runs the session in the thread that has the call."""

    def __init__(self, model: Path, session_threads: int = 1, decode: Decode = decode) -> None:
        self._decode = decode
        options = ort.SessionOptions()
        options.intra_op_num_threads = session_threads
        self._session = ort.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._height, self._width = self._session.get_inputs()[0].shape[1:3]
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._labels = json.loads(metadata["convserve.manifest"])["labels"]
        self._version = int(model.parent.name)

    def Classify(  # noqa: N802 - the name is the contract's
        self, request: pb.ClassifyRequest, context: grpc.ServicerContext
    ) -> pb.ClassifyResponse:
        """The probabilities of every image."""
        if request.HasField("encoded"):
            files = request.encoded.images
            pixels = np.stack([self._decode(data, self._height, self._width) for data in files])
        else:
            sent = request.pixels
            shape = (sent.count, sent.height, sent.width, sent.channels)
            pixels = np.frombuffer(sent.data, np.uint8).reshape(shape)
        (rows,) = self._session.run(["probabilities"], {"pixels": pixels})
        response = pb.ClassifyResponse(
            id=request.id, model=request.model, version=self._version, labels=self._labels
        )
        for row in rows.tolist():
            response.results.add().prediction.probabilities.extend(row)
        return response


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    # One, for each call has a thread of its own; 0: ONNX Runtime's default, all CPUs for each call.
    parser.add_argument("--session-threads", type=int, default=1)
    parser.add_argument("--decoder", choices=("pillow", "convserve"), default="pillow")
    arguments = parser.parse_args()
    # Photographs may be larger than the 4 MiB that grpc takes by default.
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=options)
    chosen = decode if arguments.decoder == "pillow" else photos.decode
    servicer = Classifier(arguments.model, arguments.session_threads, chosen)  # type: ignore[abstract] # Classify is all it has
    classifier_pb2_grpc.add_ClassifierServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()

"""BentoML: HTTP, adaptive batching on.

    python -m benchmarks.peers.servers.bentoml_server models/mnist/1/model.onnx

Two workers. Requests are JSON, as it accepts nothing else from outside but forms and files:
{"pixels": [base64 of each image]}. NumPy arrays as numbers in JSON would cost it ten times as much
processor for 64 images. Sources: https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html,
https://docs.bentoml.com/en/latest/build-with-bentoml/iotypes.html.
"""

import argparse
import base64
import os
import sys

import bentoml  # type: ignore[import-not-found] # in its environment
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.peers.servers.free_port import announced_port

_MODEL = "PEER_MODEL"


@bentoml.service(workers=2)
class Classifier:
    """Runs the session in a thread of a worker process."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ[_MODEL], options, providers=["CPUExecutionProvider"]
        )
        self._shape = self._session.get_inputs()[0].shape[1:]

    @bentoml.api(batchable=True, max_batch_size=64)  # type: ignore[untyped-decorator] # as above
    def classify(self, pixels: list[str]) -> np.ndarray:
        """The probabilities of a batch: float32 [N, K]."""
        images = [np.frombuffer(base64.b64decode(data), np.uint8) for data in pixels]
        batch = np.stack([image.reshape(self._shape) for image in images])
        rows: NDArray[np.float32]
        (rows,) = self._session.run(["probabilities"], {"pixels": batch})
        return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    os.environ[_MODEL] = os.path.abspath(parser.parse_args().model)
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        "benchmarks.peers.servers.bentoml_server:Classifier",
    ]
    command += ["--host", "127.0.0.1", "--port", str(announced_port())]
    os.execv(sys.executable, command)

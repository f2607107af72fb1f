"""mosec: HTTP, dynamic batching on.

    python -m benchmarks.peers.servers.mosec_server models/mnist/1/model.onnx

A worker for each of two CPUs. Bodies are bytes in both directions: uint8 of any number of images,
and their float32 probabilities. The maximum batching delay is 1 ms, the least that there is: 0
stands for its default, 10 ms. Sources: https://mosecorg.github.io/mosec/reference/interface.html
(Server.append_worker), https://mosecorg.github.io/mosec/reference/arguments.html.
"""

import argparse
import os

import numpy as np
import onnxruntime as ort
from mosec import Server, Worker  # type: ignore[import-not-found] # in its environment
from numpy.typing import NDArray

from benchmarks.peers.servers.free_port import announced_port

#: Its workers are processes that import this file anew.
_MODEL = "PEER_MODEL"


class Classifier(Worker):  # type: ignore[misc] # no types here
    """Runs the session in a worker process."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ[_MODEL], options, providers=["CPUExecutionProvider"]
        )
        self._shape = self._session.get_inputs()[0].shape[1:]

    def deserialize(self, data: bytes) -> NDArray[np.uint8]:
        """A request's images: uint8 [N, H, W, C]."""
        return np.frombuffer(data, np.uint8).reshape(-1, *self._shape)

    def forward(self, data: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """The rows of each request of a batch."""
        (rows,) = self._session.run(["probabilities"], {"pixels": np.concatenate(data)})
        return np.split(rows, np.cumsum([len(pixels) for pixels in data])[:-1])

    def serialize(self, data: NDArray[np.float32]) -> bytes:
        """The body of an answer."""
        return data.tobytes()


def main() -> None:
    """Serves until a signal stops it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    os.environ[_MODEL] = os.path.abspath(parser.parse_args().model)
    os.environ["MOSEC_ADDRESS"] = "127.0.0.1"
    os.environ["MOSEC_PORT"] = str(announced_port())
    os.environ["MOSEC_LOG_LEVEL"] = "warning"
    server = Server()
    server.append_worker(Classifier, num=2, max_batch_size=64, max_wait_time=1)
    server.run()


if __name__ == "__main__":
    main()

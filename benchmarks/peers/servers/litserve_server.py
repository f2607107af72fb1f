"""LitServe: HTTP, batching on.

    python -m benchmarks.peers.servers.litserve_server models/mnist/1/model.onnx

A worker for each of two CPUs, its faster queue, and a maximum batching delay of 1 ms. Requests are
JSON, as it accepts no other body but forms: {"shape": [N, H, W, C], "pixels": base64 of uint8}.
Sources:
https://lightning.ai/docs/litserve/features/batching,
https://lightning.ai/docs/litserve/api-reference/litserver.
"""

import argparse
import base64
from pathlib import Path
from typing import Any

import litserve as ls  # type: ignore[import-not-found] # in its environment
import numpy as np
import onnxruntime as ort
from fastapi import Request  # type: ignore[import-not-found] # in its environment
from numpy.typing import NDArray

from benchmarks.peers.servers.free_port import announced_port


class Classifier(ls.LitAPI):  # type: ignore[misc] # no types here
    """Runs the session in a worker process."""

    def __init__(self, model: Path) -> None:
        super().__init__(max_batch_size=64, batch_timeout=0.001)
        self._model = str(model)

    def setup(self, device: str) -> None:
        """Read the model file."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            self._model, options, providers=["CPUExecutionProvider"]
        )

    # Declared as what makes LitServe read JSON; what comes is the object in it.
    def decode_request(self, request: Request, context: Any) -> NDArray[np.uint8]:
        """A request's images: uint8 [N, H, W, C]."""
        data = base64.b64decode(request["pixels"])
        pixels = np.frombuffer(data, np.uint8).reshape(request["shape"])
        context["images"] = len(pixels)
        return pixels

    # Instead of its own, which would stack requests of one size.
    def batch(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The images of all requests."""
        return np.concatenate(inputs)

    def predict(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities of all images: float32 [N, K]."""
        rows: NDArray[np.float32]
        (rows,) = self._session.run(["probabilities"], {"pixels": x})
        return rows

    def unbatch(self, output: NDArray[np.float32], context: Any) -> list[NDArray[np.float32]]:
        """The rows of each request."""
        ends = np.cumsum([one["images"] for one in context])
        return np.split(output, ends[:-1])

    def encode_response(self, output: NDArray[np.float32]) -> Any:
        """What becomes JSON."""
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    server = ls.LitServer(
        Classifier(parser.parse_args().model),
        accelerator="cpu",
        workers_per_device=2,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1", port=announced_port(), log_level="warning", generate_client_file=False
    )

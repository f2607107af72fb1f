"""Ray Serve: gRPC with our own service, @serve.batch.

    python -m benchmarks.peers.servers.ray_server models/mnist/1/model.onnx

Two replicas, its settings for high throughput, and a maximum batching delay of 1 ms. Sources:
https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html,
https://docs.ray.io/en/latest/serve/advanced-guides/grpc-guide.html,
https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html.
"""

import argparse
import json
import signal
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.config import gRPCOptions

from benchmarks.peers.servers.free_port import announced_port, free_port
from convserve_protos import classifier_pb2 as pb

_SERVICE = "convserve_protos.classifier_pb2_grpc.add_ClassifierServicer_to_server"


@serve.deployment(num_replicas=2, max_ongoing_requests=128)
class Classifier:
    """Runs the session in a replica."""

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._labels = json.loads(metadata["convserve.manifest"])["labels"]
        self._version = int(Path(model).parent.name)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)  # type: ignore[untyped-decorator] # as above
    async def probabilities(self, asked: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """The rows of each request."""
        (rows,) = self._session.run(["probabilities"], {"pixels": np.concatenate(asked)})
        return np.split(rows, np.cumsum([len(pixels) for pixels in asked])[:-1])

    async def Classify(self, request: pb.ClassifyRequest) -> pb.ClassifyResponse:  # noqa: N802 - the name is the contract's
        """The probabilities of every image."""
        sent = request.pixels
        shape = (sent.count, sent.height, sent.width, sent.channels)
        rows = await self.probabilities(np.frombuffer(sent.data, np.uint8).reshape(shape))
        response = pb.ClassifyResponse(
            id=request.id, model=request.model, version=self._version, labels=self._labels
        )
        for row in rows.tolist():
            response.results.add().prediction.probabilities.extend(row)
        return response


def main() -> None:
    """Serves until a signal stops it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    model = parser.parse_args().model.resolve()
    stop = threading.Event()
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    options = gRPCOptions(port=announced_port(), grpc_servicer_functions=[_SERVICE])
    # Without its HTTP proxy there is no gRPC one.
    serve.start(grpc_options=options, http_options={"host": "127.0.0.1", "port": free_port()})
    serve.run(Classifier.bind(str(model)))  # type: ignore[attr-defined] # what the decorator made
    # After ray.init, which sets its own.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    ray.shutdown()


if __name__ == "__main__":
    main()

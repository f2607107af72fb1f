"""The baseline: what one writes in an afternoon, grpcio with a thread pool and no batching.

    python benchmarks/naive_server.py models/mnist/1/model.onnx

Speaks convserve.v1.Classifier/Classify on a free port, which it prints as JSON.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort

from convserve_protos import classifier_pb2 as pb
from convserve_protos import classifier_pb2_grpc


class Classifier(classifier_pb2_grpc.ClassifierServicer):
    """Runs the session in the thread that has the call."""

    def __init__(self, model: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._labels = json.loads(metadata["convserve.manifest"])["labels"]
        self._version = int(model.parent.name)

    def Classify(  # noqa: N802 - the name is the contract's
        self, request: pb.ClassifyRequest, context: grpc.ServicerContext
    ) -> pb.ClassifyResponse:
        """The probabilities of every image."""
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
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    servicer = Classifier(Path(sys.argv[1]))  # type: ignore[abstract] # Classify is all it has
    classifier_pb2_grpc.add_ClassifierServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()

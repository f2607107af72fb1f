"""The naive server with coroutines instead of a thread for each call: grpc.aio, no batching.

    python -m benchmarks.peers.servers.asyncio_server models/mnist/1/model.onnx

Source: https://grpc.github.io/grpc/python/grpc_asyncio.html.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import grpc

from benchmarks.harness.naive_server import Classifier, decode
from convserve_protos import classifier_pb2 as pb
from convserve_protos import classifier_pb2_grpc


class AsyncClassifier(classifier_pb2_grpc.ClassifierServicer):
    """Runs the session in a thread, for whatever computes would stop the loop."""

    def __init__(self, model: Path) -> None:
        self._classifier = Classifier(model, 1, decode)  # type: ignore[abstract] # Classify is all it has

    async def Classify(  # noqa: N802 - the name is the contract's
        self,
        request: pb.ClassifyRequest,
        context: Any,
    ) -> pb.ClassifyResponse:
        """The probabilities of every image."""
        return await asyncio.to_thread(self._classifier.Classify, request, context)


async def serve(model: Path) -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    servicer = AsyncClassifier(model)  # type: ignore[abstract] # Classify is all it has
    classifier_pb2_grpc.add_ClassifierServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    asyncio.run(serve(parser.parse_args().model))

"""MLServer with a custom runtime: gRPC, Open Inference Protocol, adaptive batching on.

    python -m benchmarks.peers.servers.mlserver_server models/mnist/1/model.onnx

No pool of workers, whose queues cost a small model more than they bring: two answer 800 calls/s
where none answers 1,200. The maximum batching delay is 1 ms. Sources:
https://docs.seldon.ai/mlserver/user-guide/custom,
https://docs.seldon.ai/mlserver/user-guide/adaptive-batching,
https://docs.seldon.ai/mlserver/user-guide/parallel-inference.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found] # in its environment
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found] # as above
from mlserver.settings import ModelParameters  # type: ignore[import-not-found] # as above
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found] # as above

from benchmarks.peers.servers.free_port import announced_port, free_port


class Runtime(MLModel):  # type: ignore[misc] # no types here
    """Runs the session on the event loop."""

    async def load(self) -> bool:
        """Read the model file."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The probabilities of a batch that MLServer has merged."""
        pixels = NumpyCodec.decode_input(payload.inputs[0])
        (rows,) = self._session.run(["probabilities"], {"pixels": pixels})
        output = NumpyCodec.encode_output("probabilities", rows)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(model: Path) -> None:
    """Serves until a signal stops it."""
    with tempfile.TemporaryDirectory(prefix="mlserver-") as folder:
        settings = Settings(
            debug=False,
            host="127.0.0.1",
            grpc_port=announced_port(),
            http_port=free_port(),
            metrics_endpoint=None,
            parallel_workers=0,
            environments_dir=folder,
            metrics_dir=folder,
        )
        classifier = ModelSettings(
            name=model.parent.parent.name,
            implementation="benchmarks.peers.servers.mlserver_server.Runtime",
            parameters=ModelParameters(uri=str(model)),
            max_batch_size=64,
            max_batch_time=0.001,
        )
        await MLServer(settings).start([classifier])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    asyncio.run(serve(parser.parse_args().model))

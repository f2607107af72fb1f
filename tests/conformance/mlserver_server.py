"""MLServer with the suite's models, in the environment that benchmarks/peers locks.

    python -m tests.conformance.served_models models
    python3 -m venv .peers/mlserver-conformance
    .peers/mlserver-conformance/bin/pip install -r benchmarks/peers/servers/mlserver.txt
    PYTHONPATH=. .peers/mlserver-conformance/bin/python -m tests.conformance.mlserver_server models

The runtime is what its documentation shows: decode each input, run the session, encode each output.
What it can notice, it raises as MLServer's own InferenceError, so that what fails is MLServer's.
Source: https://docs.seldon.ai/mlserver/user-guide/custom
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found] # in its environment
from mlserver.codecs import (  # type: ignore[import-not-found] # as above
    NumpyCodec,
    StringCodec,
)
from mlserver.errors import InferenceError  # type: ignore[import-not-found] # as above
from mlserver.settings import ModelParameters  # type: ignore[import-not-found] # as above
from mlserver.types import (  # type: ignore[import-not-found] # as above
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    RequestInput,
    ResponseOutput,
)

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class Runtime(MLModel):  # type: ignore[misc] # no types here
    """Runs an ONNX session on the event loop."""

    async def load(self) -> bool:
        """Reads the model file."""
        self._session = ort.InferenceSession(
            self.settings.parameters.uri, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The outputs of a request; raises InferenceError if the session refuses it."""
        names = [each.name for each in payload.outputs or self._session.get_outputs()]
        try:
            feed = {each.name: _decoded(each) for each in payload.inputs}
            arrays = self._session.run(names, feed)
        except Exception as error:  # noqa: BLE001 # NumPy's and ONNX Runtime's are of many classes
            raise InferenceError(f"{type(error).__name__}: {error}") from error
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[_encoded(name, each) for name, each in zip(names, arrays, strict=True)],
        )


def _decoded(tensor: RequestInput) -> object:
    if tensor.datatype == "BYTES":  # StringCodec alone would lose the shape.
        return np.array(StringCodec.decode_input(tensor), object).reshape(tensor.shape)
    return NumpyCodec.decode_input(tensor)


def _encoded(name: str, array: Any) -> ResponseOutput:
    if array.dtype != object:
        return NumpyCodec.encode_output(name, array)
    elements = [each.encode() for each in array.ravel().tolist()]
    return ResponseOutput(name=name, shape=list(array.shape), datatype="BYTES", data=elements)


def _metadata(tensors: list[ort.NodeArg]) -> list[MetadataTensor]:
    return [
        MetadataTensor(
            name=each.name,
            datatype=_DATATYPES[each.type],
            shape=[size if isinstance(size, int) else -1 for size in each.shape],
        )
        for each in tensors
    ]


def _settings(file: Path) -> ModelSettings:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return ModelSettings(
        name=file.parent.parent.name,
        implementation="tests.conformance.mlserver_server.Runtime",
        platform="onnx_onnxv1",
        inputs=_metadata(session.get_inputs()),
        outputs=_metadata(session.get_outputs()),
        parameters=ModelParameters(uri=str(file), version=file.parent.name),
    )


async def serve(models: Path, grpc_port: int, http_port: int) -> None:
    """Serves until a signal stops it.

    Args:
        models: folder of NAME/VERSION/model.onnx.
        grpc_port: of 127.0.0.1.
        http_port: of 127.0.0.1.
    """
    with tempfile.TemporaryDirectory(prefix="mlserver-") as folder:
        settings = Settings(
            debug=False,
            host="127.0.0.1",
            grpc_port=grpc_port,
            http_port=http_port,
            metrics_endpoint=None,
            parallel_workers=0,
            environments_dir=folder,
            metrics_dir=folder,
        )
        served = [_settings(file) for file in sorted(models.glob("*/*/model.onnx"))]
        await MLServer(settings).start(served)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("--grpc-port", type=int, default=8081)
    parser.add_argument("--http-port", type=int, default=8080)
    given = parser.parse_args()
    asyncio.run(serve(given.models, given.grpc_port, given.http_port))

"""How each server is asked: the same pixels and probabilities in the protocol that it speaks."""

import base64
import json
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import open_inference
from benchmarks.harness.answers import CLASSIFY, GRPC
from convserve_protos import classifier_pb2 as pb

_JSON = "application/json"


class WireFormat(Protocol):
    """A protocol, and the form of pixels and probabilities in it."""

    @property
    def title(self) -> str:
        """For the table."""

    @property
    def path(self) -> str:
        """The gRPC method, or what the POSTs go to."""

    @property
    def content_type(self) -> str:
        """GRPC, or that of the POSTs."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Of a call, beside its content type."""

    @property
    def least_bytes(self) -> int:
        """Size that a probability has in an answer at least."""

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """A call about uint8 [N, H, W, C], right or wrong."""

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """The probabilities in an answer: float32 [N, K].

        Raises:
            ValueError: if there are none.
        """


@dataclass(frozen=True)
class ConvserveV1:
    """Our own: convserve.v1.Classifier."""

    model: str
    title: str = "gRPC, convserve.v1, bytes"
    path: str = CLASSIFY
    content_type: str = GRPC
    headers: tuple[tuple[str, str], ...] = ()
    least_bytes: int = 4

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """See WireFormat.body."""
        count, height, width, channels = pixels.shape
        sent = pb.Pixels(
            count=count, height=height, width=width, channels=channels, data=pixels.tobytes()
        )
        return pb.ClassifyRequest(model=self.model, pixels=sent).SerializeToString()

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """See WireFormat.rows."""
        results = pb.ClassifyResponse.FromString(answer).results
        return np.array([one.prediction.probabilities for one in results], np.float32)


@dataclass(frozen=True)
class OpenInference:
    """The Open Inference Protocol with raw tensors.

    Args:
        model: that is asked.
        datatype: of the pixels, UINT8 or FP32.
    """

    model: str
    datatype: str = "UINT8"
    title: str = "gRPC, Open Inference, bytes"
    path: str = open_inference.MODEL_INFER
    content_type: str = GRPC
    headers: tuple[tuple[str, str], ...] = ()
    least_bytes: int = 4

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """See WireFormat.body."""
        request = open_inference.ModelInferRequest(model_name=self.model)
        request.inputs.add(name="pixels", datatype=self.datatype, shape=pixels.shape)
        sent = pixels if self.datatype == "UINT8" else pixels.astype("<f4")
        request.raw_input_contents.append(sent.tobytes())
        serialized: bytes = request.SerializeToString()
        return serialized

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """See WireFormat.rows."""
        response = open_inference.ModelInferResponse.FromString(answer)
        (data,) = response.raw_output_contents
        return np.frombuffer(data, np.float32).reshape(response.outputs[0].shape)


@dataclass(frozen=True)
class OpenInferenceJson:
    """The Open Inference Protocol over HTTP, numbers as JSON."""

    path: str
    title: str = "HTTP/1.1, Open Inference, JSON"
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()
    least_bytes: int = 2

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """See WireFormat.body."""
        return json.dumps({"inputs": [_tensor(pixels, data=pixels.ravel().tolist())]}).encode()

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """See WireFormat.rows."""
        (output,) = json.loads(answer)["outputs"]
        return np.array(output["data"], np.float32).reshape(output["shape"])


#: JSON before binary data, filled up with spaces: its length is the same for any number of images.
_HEAD_BYTES = 256


@dataclass(frozen=True)
class OpenInferenceBinary:
    """The Open Inference Protocol over HTTP, bytes behind the JSON."""

    path: str
    title: str = "HTTP/1.1, Open Inference, bytes"
    content_type: str = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = (("inference-header-content-length", str(_HEAD_BYTES)),)
    least_bytes: int = 4

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """See WireFormat.body."""
        size = {"binary_data_size": pixels.nbytes}
        head = {
            "inputs": [_tensor(pixels, parameters=size)],
            "parameters": {"binary_data_output": True},
        }
        return json.dumps(head).ljust(_HEAD_BYTES).encode() + pixels.tobytes()

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """See WireFormat.rows."""
        head, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
        (output,) = head["outputs"]
        return np.frombuffer(answer[end:], "<f4").reshape(output["shape"])


def _tensor(pixels: NDArray[np.uint8], **fields: object) -> dict[str, object]:
    return {"name": "pixels", "datatype": "UINT8", "shape": pixels.shape, **fields}


@dataclass(frozen=True)
class Base64:
    """JSON objects with the shape, and the pixels in base64."""

    path: str
    title: str = "HTTP/1.1, JSON with base64"
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()
    least_bytes: int = 2

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """See WireFormat.body."""
        data = base64.b64encode(pixels.tobytes()).decode()
        return json.dumps({"shape": pixels.shape, "pixels": data}).encode()

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """See WireFormat.rows."""
        return np.array(json.loads(answer)["probabilities"], np.float32)


@dataclass(frozen=True)
class Base64Each:
    """JSON objects with the pixels of each image in base64."""

    path: str
    title: str = "HTTP/1.1, JSON with base64"
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()
    least_bytes: int = 2

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """See WireFormat.body."""
        images = [base64.b64encode(image.tobytes()).decode() for image in pixels]
        return json.dumps({"pixels": images}).encode()

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """See WireFormat.rows."""
        return np.array(json.loads(answer), np.float32)


@dataclass(frozen=True)
class RawBytes:
    """The bytes of the pixels, and of the probabilities, with nothing else.

    Args:
        path: that is asked.
        classes: probabilities of an image.
    """

    path: str
    classes: int
    title: str = "HTTP/1.1, bytes"
    content_type: str = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = ()
    least_bytes: int = 4

    def body(self, pixels: NDArray[np.uint8]) -> bytes:
        """See WireFormat.body."""
        return pixels.tobytes()

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        """See WireFormat.rows."""
        return np.frombuffer(answer, "<f4").reshape(-1, self.classes)

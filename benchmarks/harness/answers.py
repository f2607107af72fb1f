"""The questions that servers are asked, and whether they answer as ONNX Runtime does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.bundles import Bundle
from convserve_protos import classifier_pb2 as pb
from convserve_protos import classifier_pb2_grpc
from convserve_protos.bundle_pb2 import PRECISION_BFLOAT16, PRECISION_INT8

CLASSIFY = "/convserve.v1.Classifier/Classify"
#: Content type of calls over gRPC; any other is a POST over HTTP/1.1.
GRPC = "application/grpc"

#: Largest difference of a probability: float32 rounding in batches of other sizes.
_TOLERANCE = 1e-5
#: Where OpenVINO may compute: bfloat16 is float32 in ONNX Runtime, so the bound that bundles state;
#: int8 is rounded elsewhere between layers.
_TOLERANCES = {PRECISION_BFLOAT16: 8e-2, PRECISION_INT8: 1e-3}
_CHECKED_SINGLY = 4
_DEADLINE_S = 30.0


class Decode(Protocol):
    """A way from a file to the pixels that a model expects."""

    def __call__(self, data: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """Returns uint8 [height, width, 3], RGB."""


class WrongAnswer(Exception):
    """A server refused, or answered something else than the model; str() says what."""


class Call(NamedTuple):
    """A question as it is sent."""

    #: A message without gRPC's frame, or the body of a POST.
    body: bytes
    #: Size of the smallest right answer.
    least_reply_bytes: int
    path: str = CLASSIFY
    content_type: str = GRPC
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Questions:
    """Images and the right answers to them.

    Args:
        model: name of the model.
        version: its version.
        labels: in the order of the columns of rows.
        images: uint8 [N, H, W, C], or N files.
        rows: float32 [N, K], the probabilities from ONNX Runtime run directly.
        together: most images in one call of check().
        authority: certificate (PEM) that signed the server's; empty: the server speaks no TLS.
        within: largest difference of a probability.
    """

    model: str
    version: int
    labels: tuple[str, ...]
    images: NDArray[np.uint8] | Sequence[bytes]
    rows: NDArray[np.float32]
    together: int
    authority: bytes = b""
    within: float = _TOLERANCE

    @classmethod
    def of_pixels(cls, bundle: Bundle, images: int, seed: int = 0) -> Self:
        """Random images."""
        shape = (images, *bundle.shape)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        return cls._of(bundle, pixels, pixels, together=images)

    @classmethod
    def of_files(cls, bundle: Bundle, files: Sequence[bytes], decode: Decode) -> Self:
        """Photographs, and how the server that is asked should decode them."""
        height, width, _ = bundle.shape
        pixels = np.stack([decode(data, height, width) for data in files])
        # Several in a call are checked too, but many could exceed the largest message.
        return cls._of(bundle, files, pixels, together=2)

    @classmethod
    def _of(
        cls,
        bundle: Bundle,
        images: NDArray[np.uint8] | Sequence[bytes],
        pixels: NDArray[np.uint8],
        together: int,
    ) -> Self:
        labels = tuple(bundle.manifest.labels)
        rows = bundle.probabilities(pixels)
        within = _TOLERANCES.get(bundle.manifest.precision, _TOLERANCE)
        return cls(bundle.model, bundle.version, labels, images, rows, together, within=within)

    def request(self, first: int, count: int) -> pb.ClassifyRequest:
        """Some of the images as one request."""
        images = self.images[first : first + count]
        if not isinstance(images, np.ndarray):
            return pb.ClassifyRequest(model=self.model, encoded=pb.EncodedImages(images=images))
        _, height, width, channels = images.shape
        return pb.ClassifyRequest(
            model=self.model,
            pixels=pb.Pixels(
                count=count, height=height, width=width, channels=channels, data=images.tobytes()
            ),
        )

    def call(self, first: int, count: int) -> Call:
        """Some of the images as a call."""
        body = self.request(first, count).SerializeToString()
        return Call(body, self.least_reply_bytes(count))

    def least_reply_bytes(self, count: int) -> int:
        """Size of the right answer for so many images without the timings, which vary."""
        reply = pb.ClassifyResponse(model=self.model, version=self.version, labels=self.labels)
        for row in self.rows[:count].tolist():
            reply.results.add().prediction.probabilities.extend(row)
        return reply.ByteSize()

    def check(self, address: str) -> None:
        """Ask a server with a real client: all images, several in a call, and some singly.

        Raises:
            WrongAnswer: if a status is not OK, a label differs, or a probability by too much.
        """
        total = len(self.rows)
        parts = [
            *((first, self.together) for first in range(0, total, self.together)),
            *((first, 1) for first in range(min(total, _CHECKED_SINGLY))),
        ]
        with self._channel(address) as channel:
            stub = classifier_pb2_grpc.ClassifierStub(channel)
            for first, count in parts:
                try:
                    reply = stub.Classify(self.request(first, count), timeout=_DEADLINE_S)
                except grpc.RpcError as error:
                    raise WrongAnswer(f"{error.code().name}: {error.details()}") from error
                self._compare(reply, self.rows[first : first + count])

    def _channel(self, address: str) -> grpc.Channel:
        if not self.authority:
            return grpc.insecure_channel(address)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.authority))

    def _compare(self, reply: pb.ClassifyResponse, rows: NDArray[np.float32]) -> None:
        who = (reply.model, reply.version, tuple(reply.labels))
        if who != (self.model, self.version, self.labels):
            raise WrongAnswer(f"answered by {who[0]}/{who[1]} with labels {who[2]}")
        for result in reply.results:
            if result.WhichOneof("outcome") != "prediction":
                raise WrongAnswer(f"an image was refused: {result.error.message}")
        got = np.array([result.prediction.probabilities for result in reply.results], np.float32)
        compare(got, rows, self.within)


def compare(
    got: NDArray[np.float32], rows: NDArray[np.float32], within: float = _TOLERANCE
) -> None:
    """Whether two arrays of probabilities are the same, float32 [N, K] each, the right one second.

    Raises:
        WrongAnswer: if the shape or a label differs, or a probability by more than `within`.
    """
    if got.shape != rows.shape:
        raise WrongAnswer(f"probabilities of shape {got.shape}, expected {rows.shape}")
    difference = float(np.abs(got - rows).max())
    if not difference <= within:
        raise WrongAnswer(f"probabilities differ from ONNX Runtime's by {difference:.2g}")
    # Two classes as probable as each other, within what rounding may do, have no order.
    top = np.sort(rows, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * within
    wrong = int((got.argmax(axis=1) != rows.argmax(axis=1))[clear].sum())
    if wrong:
        raise WrongAnswer(f"{wrong} of {len(rows)} labels differ from ONNX Runtime's")

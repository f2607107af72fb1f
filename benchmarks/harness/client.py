"""One question and its answer over any protocol, by a real client."""

import http.client
from dataclasses import dataclass
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import GRPC, Call, Questions, WrongAnswer, compare
from benchmarks.harness.wire_formats import WireFormat

_DEADLINE_S = 30.0
_CHECKED_SINGLY = 4


class Refused(Exception):
    """A call failed.

    Attributes:
        status: name of the gRPC status, or HTTP and a number.
        message: what came with it.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


def ask(address: str, wire_format: WireFormat, pixels: NDArray[np.uint8]) -> bytes:
    """The answer to a call about uint8 [N, H, W, C].

    Raises:
        Refused: if it failed.
        OSError: if there is nobody, over HTTP.
    """
    body = wire_format.body(pixels)
    if wire_format.content_type == GRPC:
        with grpc.insecure_channel(address) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                wire_format.path
            )
            try:
                return method(body, timeout=_DEADLINE_S, metadata=wire_format.headers)
            except grpc.RpcError as error:
                raise Refused(error.code().name, str(error.details())) from error
    connection = http.client.HTTPConnection(address, timeout=_DEADLINE_S)
    try:
        connection.request(
            "POST",
            wire_format.path,
            body,
            {"content-type": wire_format.content_type, **dict(wire_format.headers)},
        )
        response = connection.getresponse()
        answer = response.read()
    except http.client.HTTPException as error:
        raise Refused(type(error).__name__, str(error)) from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise Refused(f"HTTP {response.status}", answer.decode(errors="replace"))
    return answer


@dataclass(frozen=True)
class WireQuestions:
    """See meter.Asked.

    Args:
        wire_format: that the server speaks.
        images: uint8 [N, H, W, C].
        rows: float32 [N, K], the probabilities from ONNX Runtime run directly.
    """

    wire_format: WireFormat
    images: NDArray[np.uint8]
    rows: NDArray[np.float32]

    @classmethod
    def of(cls, wire_format: WireFormat, asked: Questions) -> Self:
        """The same questions in a wire format; they are of pixels."""
        assert isinstance(asked.images, np.ndarray)
        return cls(wire_format, asked.images, asked.rows)

    def call(self, first: int, count: int) -> Call:
        """See Asked.call."""
        return Call(
            body=self.wire_format.body(self.images[first : first + count]),
            least_reply_bytes=self.wire_format.least_bytes * self.rows[:count].size,
            path=self.wire_format.path,
            content_type=self.wire_format.content_type,
            headers=self.wire_format.headers,
        )

    def check(self, address: str) -> None:
        """See Asked.check: all in a call, and some singly."""
        self.check_some(address, 0, len(self.rows))
        for first in range(min(len(self.rows), _CHECKED_SINGLY)):
            self.check_some(address, first, 1)

    def check_some(self, address: str, first: int, count: int) -> None:
        """Ask about these in one call, and compare.

        Raises:
            WrongAnswer: see Asked.check.
        """
        asked = slice(first, first + count)
        try:
            rows = self.wire_format.rows(ask(address, self.wire_format, self.images[asked]))
        except (Refused, OSError) as error:
            raise WrongAnswer(str(error)) from error
        except (ValueError, LookupError, TypeError) as error:
            raise WrongAnswer(f"an answer that is none: {error!r}") from error
        compare(rows, self.rows[asked])

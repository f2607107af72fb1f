"""A protocol of one file: what it is asked for are the shapes of a call's images and rows.

A request is a model's name, a zero byte, and uint8 images; the answer is JSON.
"""

import json
from collections.abc import Mapping

import numpy as np

from convserve_server.core.batch_request import Answer, Outcome
from convserve_server.core.classifier import Classifier
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import InvalidRequest, ServeError
from convserve_server.engines.base import Pixels
from convserve_server.protocols.base import (
    Call,
    Failure,
    Stream,
    StreamHandler,
    UnaryHandler,
)

SHAPES = "/test.Echo/Shapes"
SHAPES_STREAM = "/test.Echo/StreamShapes"


def to_failure(error: ServeError) -> Failure:
    """Statuses of HTTP, as a protocol without gRPC has them."""
    return Failure(400 if isinstance(error, InvalidRequest) else 500, str(error), (), error.reason)


class Shapes:
    """The answer to one call."""

    def __init__(self, call: Call, data: bytes) -> None:
        self._call = call
        self._data = data
        self._shape: tuple[int, ...] = ()

    def inputs(self, model: ModelDescription) -> Pixels:
        size = int(np.prod(model.image_shape))
        if not self._data or len(self._data) % size:
            raise InvalidRequest(
                "data", f"expected a multiple of {size} bytes, got {len(self._data)}"
            )
        images = np.frombuffer(self._data, np.uint8).reshape(-1, *model.image_shape)
        self._shape = images.shape
        return images

    @property
    def size(self) -> int:
        return len(self._data)

    def queued(self) -> None:
        self._data = b""

    def finish(self, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            shapes = {"images": self._shape, "rows": outcome.rows.shape}
            self._call.reply(json.dumps(shapes).encode())
        else:
            self._call.fail(to_failure(outcome))


class Echo:
    """The service."""

    name = "test.Echo"

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def unary(self) -> Mapping[str, UnaryHandler]:
        return {"Shapes": self._shapes}

    def streams(self) -> Mapping[str, StreamHandler]:
        return {"StreamShapes": self._stream_shapes}

    def failure(self, error: ServeError) -> Failure:
        return to_failure(error)

    def drain(self) -> None:
        pass

    def _shapes(self, call: Call) -> None:
        name, _, data = call.payload.partition(b"\0")
        call.on_cancel = self._classifier.submit(
            name.decode(),
            None,
            Shapes(call, data),
            deadline=call.deadline,
            connection=call.connection,
            idle_caller=call.idle_caller,
        )

    async def _stream_shapes(self, stream: Stream) -> None:
        """Names of models in, the shapes of their images out."""
        shapes = {model.name: model.image_shape for model in self._classifier.models()}
        while (name := await stream.read()) is not None:
            await stream.write(json.dumps(shapes[name.decode()]).encode())

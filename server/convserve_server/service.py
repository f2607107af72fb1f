"""convserve.v1.Classifier: from request bytes to images for a batcher, from rows to response."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb
from convserve_server.batcher import Answer, Request
from convserve_server.dispatcher import Cancel, Method, Reply
from convserve_server.errors import InternalFault, InvalidRequest, ServeError
from convserve_server.front import Call
from convserve_server.repository import ModelVersion, Repository

SERVICE = "convserve.v1.Classifier"
CLASSIFY = f"/{SERVICE}/Classify"
STREAM_CLASSIFY = f"/{SERVICE}/StreamClassify"
LIST_MODELS = f"/{SERVICE}/ListModels"
UNARY_METHODS = (CLASSIFY, LIST_MODELS)

_MAX_ID_BYTES = 128


@dataclass(frozen=True)
class Service:
    """The methods of the service, over a repository.

    Args:
        repository: the models.
        max_images: most images in one request.
    """

    repository: Repository
    max_images: int

    def methods(self) -> dict[str, Method]:
        """The unary methods by path."""
        return {CLASSIFY: self.classify, LIST_MODELS: self.list_models}

    def classify(self, call: Call, reply: Reply) -> Cancel:
        """Classify: check the request, queue its images, reply when their rows are there.

        Raises:
            InvalidRequest: naming the field, what it was and what is taken.
            NotFound, NotReady, QueueFull: see there.
        """
        request = pb.ClassifyRequest()
        _parse(request, call.payload)
        if request.id and len(request.id.encode()) > _MAX_ID_BYTES:
            raise InvalidRequest(
                "id", f"is {len(request.id.encode())} bytes, at most {_MAX_ID_BYTES} are taken"
            )
        # A version that is being unloaded refuses; by then the repository has its successor.
        for attempt in (1, 2):
            model = self.repository.get(
                request.model, request.version if request.HasField("version") else None
            )
            work = Request(
                self._pixels(request, model),
                call.deadline,
                _answer(reply, request.id, model, _top_k(request, model)),
            )
            if model.submit(work, alone=call.alone, last=attempt == 2):
                break
        return lambda: model.cancel(work)

    def list_models(self, call: Call, reply: Reply) -> None:
        """ListModels: what the repository has loaded."""
        _parse(pb.ListModelsRequest(), call.payload)
        response = pb.ListModelsResponse()
        for model in self.repository.models():
            response.models.add(
                name=model.name,
                version=model.version,
                manifest=model.manifest,
                execution_provider=model.engine.provider,
            )
        reply(response.SerializeToString())

    def _pixels(self, request: pb.ClassifyRequest, model: ModelVersion) -> NDArray[np.uint8]:
        """The images of a request, uint8 [N, H, W, C], a view of its bytes.

        Raises:
            InvalidRequest: if they are not what the model takes.
        """
        if not request.HasField("pixels"):
            raise InvalidRequest("input", "is missing, pixels are taken")
        pixels = request.pixels
        shape = height, width, channels = model.engine.image_shape
        given = (pixels.height, pixels.width, pixels.channels)
        if given != shape:
            for field, has, must in zip(("height", "width", "channels"), given, shape, strict=True):
                if has != must:
                    raise InvalidRequest(
                        f"pixels.{field}", f"is {has}, model {model.name} takes {must}"
                    )
        if not 1 <= pixels.count <= self.max_images:
            raise InvalidRequest(
                "pixels.count", f"is {pixels.count}, 1 to {self.max_images} are taken"
            )
        expected = pixels.count * height * width * channels
        if len(pixels.data) != expected:
            raise InvalidRequest(
                "pixels.data",
                f"is {len(pixels.data)} bytes, {pixels.count} images of "
                f"{height} x {width} x {channels} are {expected}",
            )
        return np.frombuffer(pixels.data, np.uint8).reshape(-1, height, width, channels)


def _parse(message: pb.ClassifyRequest | pb.ListModelsRequest, payload: bytes) -> None:
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise InvalidRequest(
            "request", f"is no {message.DESCRIPTOR.full_name} ({len(payload)} bytes)"
        ) from error


def _top_k(request: pb.ClassifyRequest, model: ModelVersion) -> int | None:
    if not request.HasField("top_k"):
        return None
    if not 1 <= request.top_k <= model.engine.classes:
        raise InvalidRequest(
            "top_k", f"is {request.top_k}, model {model.name} takes 1 to {model.engine.classes}"
        )
    return request.top_k


def _answer(
    reply: Reply, request_id: str, model: ModelVersion, top_k: int | None
) -> Callable[[Answer | ServeError], None]:
    """What a batcher calls with the outcome of a request."""

    def done(outcome: Answer | ServeError) -> None:
        if isinstance(outcome, ServeError):
            reply(outcome)
            return
        try:
            # What is the same in all responses is serialized once: protobuf merges what follows.
            payload = model.header + _response(outcome, request_id, top_k).SerializeToString()
        except Exception as error:  # noqa: BLE001 - the caller must be told, whatever it is
            reply(InternalFault("building the response", error))
        else:
            reply(payload)

    return done


def _response(answer: Answer, request_id: str, top_k: int | None) -> pb.ClassifyResponse:
    """The response to a request, without what the model's header says."""
    response = pb.ClassifyResponse(
        id=request_id,
        timings=pb.Timings(
            queue_us=round(answer.queue_s * 1e6), compute_us=round(answer.compute_s * 1e6)
        ),
    )
    rows = answer.probabilities
    if top_k is None:
        for row in rows.tolist():
            response.results.add().prediction.probabilities.extend(row)
        return response
    classes = top_classes(rows, top_k)
    top = np.take_along_axis(rows, classes, axis=1)
    for indices, row in zip(classes.tolist(), top.tolist(), strict=True):
        _add_top(response, indices, row)
    return response


def _add_top(
    response: pb.ClassifyResponse, classes: Sequence[int], probabilities: Sequence[float]
) -> None:
    prediction = response.results.add().prediction
    prediction.classes.extend(classes)
    prediction.probabilities.extend(probabilities)


def top_classes(rows: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """The k most probable classes of each row, most probable first, ties by index.

    Args:
        rows: float32 [N, K].
        k: 1 to K.

    Returns: int [N, k].
    """
    classes: NDArray[np.intp] = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return classes

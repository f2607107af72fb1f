"""convserve.v1.Classifier: from request bytes to images for a batcher, from rows to response."""

from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb
from convserve_server.batching.request import Request
from convserve_server.decode.decoding import DecodePool
from convserve_server.errors import InvalidRequest, fitting
from convserve_server.front import Call
from convserve_server.repository import ModelVersion, Repository
from convserve_server.service.dispatcher import Cancel, Method, Reply
from convserve_server.service.encoded import EncodedCall
from convserve_server.service.responses import Responder

SERVICE = "convserve.v1.Classifier"
CLASSIFY = f"/{SERVICE}/Classify"
STREAM_CLASSIFY = f"/{SERVICE}/StreamClassify"
LIST_MODELS = f"/{SERVICE}/ListModels"
UNARY_METHODS = (CLASSIFY, LIST_MODELS)

_MAX_ID_BYTES = 128

#: Of a version that is refused, bytes.
_MOST_REASON = 1000


@dataclass(frozen=True)
class Service:
    """The methods of the service, over a repository.

    Args:
        repository: the models.
        decoding: makes pixels of files.
        max_images: most images in one request.
    """

    repository: Repository
    decoding: DecodePool
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
        if request.HasField("encoded"):
            return self._classify_encoded(request, call, reply)
        # A version that is being unloaded refuses; by then the repository has its successor.
        for attempt in (1, 2):
            model = self._model(request)
            work = Request(
                self._pixels(request, model),
                call.deadline,
                Responder(reply, model.header, request.id, _top_k(request, model)),
                call.caller,
            )
            if model.submit(work, alone=call.alone, last=attempt == 2):
                break
        return lambda: model.cancel(work)

    def list_models(self, call: Call, reply: Reply) -> None:
        """ListModels: what the repository has loaded, and what it has refused."""
        _parse(pb.ListModelsRequest(), call.payload)
        response = pb.ListModelsResponse()
        for model in self.repository.models():
            response.models.add(
                name=model.name,
                version=model.version,
                manifest=model.manifest,
                execution_provider=model.engine.provider,
            )
        for (name, version), reason in sorted(
            self.repository.refused().items(), key=lambda item: (item[0][0], -item[0][1])
        ):
            response.refused.add(name=name, version=version, reason=fitting(reason, _MOST_REASON))
        reply(response.SerializeToString())

    def _classify_encoded(self, request: pb.ClassifyRequest, call: Call, reply: Reply) -> Cancel:
        files = list(request.encoded.images)
        if not 1 <= len(files) <= self.max_images:
            raise InvalidRequest(
                "encoded.images", f"are {len(files)}, 1 to {self.max_images} are taken"
            )

        # What is kept until the answer; the whole request has the files a second time.
        asked = pb.ClassifyRequest(model=request.model, id=request.id)
        if request.HasField("version"):
            asked.version = request.version
        if request.HasField("top_k"):
            asked.top_k = request.top_k

        def choose() -> tuple[ModelVersion, Responder]:
            model = self._model(asked)
            return model, Responder(reply, model.header, asked.id, _top_k(asked, model))

        encoded = EncodedCall(files, call.deadline, call.caller, self.decoding, choose)
        encoded.start()
        return encoded.cancel

    def _model(self, request: pb.ClassifyRequest) -> ModelVersion:
        return self.repository.get(
            request.model, request.version if request.HasField("version") else None
        )

    def _pixels(self, request: pb.ClassifyRequest, model: ModelVersion) -> NDArray[np.uint8]:
        """The images of a request, uint8 [N, H, W, C], a view of its bytes.

        Raises:
            InvalidRequest: if they are not what the model takes.
        """
        if not request.HasField("pixels"):
            raise InvalidRequest("input", "is missing; pixels or encoded images are taken")
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

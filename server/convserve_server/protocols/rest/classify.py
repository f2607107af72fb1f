"""Pictures as files to convserve.v1.Classifier, and its answers as JSON.

    POST /v1/models/mnist:classify?top_k=3
    {"model": "mnist", "version": 1,
     "results": [{"label": "7", "probability": 0.98, "classes": [{"label": "7", ...}, ...]}],
     "timings": {"queue_us": 10, "compute_us": 900, "decode_us": 400}}

Of a model whose images have several labels each result also has "assigned", those of its classes
whose probability reaches their threshold, and the answer has "thresholds", by label.

With pixels=true each result also has what the model has seen, uint8 [height, width, channels]:

    "pixels": {"height": 28, "width": 28, "channels": 1, "data": "AAAA..."}
"""

import base64
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from convserve_bundle.manifest import is_softmax
from convserve_imaging.file_formats import FILE_FORMATS
from convserve_protos import bundle_pb2
from convserve_protos import classifier_pb2 as pb
from convserve_server.core.errors import quoted
from convserve_server.protocols.numbers import shortest
from convserve_server.protocols.request_ids import REQUEST_ID
from convserve_server.protocols.rest.errors import Rename, describe, failure_answer
from convserve_server.protocols.rest.messages import (
    HttpAnswer,
    HttpRequest,
    Operation,
    Problem,
    RestOptions,
)
from convserve_server.protocols.rest.parameters import (
    number_of,
    query_of,
    set_version,
    timeout_of,
    truth_of,
    wrong,
)

_SERVICE = "/convserve.v1.Classifier"

#: Of a field of the message.
_MOST_TOP_K = 2**32 - 1

_FILE = "a picture file"

# It warns of what clients send, which is their answer's to say.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def classify(
    request: HttpRequest, parameters: Mapping[str, str], options: RestOptions
) -> Operation:
    """Returns the call that classifies the picture, or pictures, in the body of a request.

    Raises:
        Problem: if there is none, or the query is wrong.
    """
    query = query_of(request, ("top_k", "pixels"))
    call = pb.ClassifyRequest(model=parameters["model"], id=request.headers.get(REQUEST_ID, ""))
    if "version" in parameters:
        set_version(call, parameters["version"])
    if "top_k" in query:
        call.top_k = number_of("top_k", query["top_k"], _MOST_TOP_K)
    if "pixels" in query:
        call.return_pixels = truth_of("pixels", query["pixels"])
    several = request.content_type().startswith("multipart/")
    if several:
        call.encoded.images.extend(_files(request, options.max_images))
    elif request.body:
        call.encoded.images.append(request.body)
    else:
        raise wrong(f"body: expected {_FILE}, got none")
    rename = _name_of_files if several else _name_of_body
    answer = _ask_shape if call.return_pixels else _classified
    return Operation(
        f"{_SERVICE}/Classify",
        call.SerializeToString(),
        partial(answer, rename=rename),
        partial(failure_answer, rename=rename),
        timeout_of(request),
    )


def list_models(request: HttpRequest, _: Mapping[str, str], __: RestOptions) -> Operation:
    """Returns the call that lists the models."""
    query_of(request, ())
    return Operation(
        f"{_SERVICE}/ListModels", b"", _models_listed, failure_answer, timeout_of(request)
    )


def _ask_shape(payload: bytes, rename: Rename) -> Operation:
    """Returns the call whose answer has the shape of the pixels, beside an answer with pixels."""

    def answer(models: bytes) -> HttpAnswer:
        response = pb.ClassifyResponse.FromString(payload)
        for model in pb.ListModelsResponse.FromString(models).models:
            if (model.name, model.version) == (response.model, response.version):
                return _classified(payload, rename, model.manifest.input)
        return _classified(payload, rename)  # It was unloaded just now.

    return Operation(f"{_SERVICE}/ListModels", b"", answer, failure_answer)


def _classified(
    payload: bytes, rename: Rename, shape: bundle_pb2.InputSpec | None = None
) -> HttpAnswer:
    response = pb.ClassifyResponse.FromString(payload)
    several = bool(response.thresholds)
    answer: dict[str, Any] = {
        "model": response.model,
        "version": response.version,
        "results": [
            _result(each, response.labels, rename, shape, several) for each in response.results
        ],
        "timings": {
            "queue_us": response.timings.queue_us,
            "compute_us": response.timings.compute_us,
            "decode_us": response.timings.decode_us,
        },
    }
    if several:
        answer["thresholds"] = dict(
            zip(response.labels, shortest(response.thresholds), strict=True)
        )
    return HttpAnswer(200, msgspec.json.encode(answer))


def _result(
    result: pb.ImageResult,
    labels: Sequence[str],
    rename: Rename,
    shape: bundle_pb2.InputSpec | None,
    several: bool,
) -> dict[str, Any]:
    """Returns the JSON object of one image.

    Args:
        result: of the image.
        labels: of the model.
        rename: see failure_answer.
        shape: of the pixels in the result; None if there are none.
        several: whether images have several labels.
    """
    if result.HasField("error"):
        return {"error": describe(result.error, rename)}
    prediction = result.prediction
    row = np.array(prediction.probabilities, np.float32)
    indices = list(prediction.classes)
    if not indices:
        order = np.argsort(-row, kind="stable")
        indices, row = order.tolist(), row[order]
    classes = _classes(indices, row, labels)
    answer: dict[str, Any] = {**classes[0], "classes": classes}
    if several:
        sure = np.array(prediction.assigned_probabilities, np.float32)
        answer["assigned"] = _classes(prediction.assigned, sure, labels)
    if shape is not None and prediction.pixels:
        answer["pixels"] = {
            "height": shape.height,
            "width": shape.width,
            "channels": shape.channels,
            "data": base64.b64encode(prediction.pixels).decode(),
        }
    return answer


def _classes(
    indices: Sequence[int], probabilities: NDArray[np.float32], labels: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {"label": labels[index], "probability": probability}
        for index, probability in zip(indices, shortest(probabilities), strict=True)
    ]


def _models_listed(payload: bytes) -> HttpAnswer:
    response = pb.ListModelsResponse.FromString(payload)
    answer = {
        "models": [_model(each) for each in response.models],
        "refused": [
            {"name": each.name, "version": each.version, "reason": each.reason}
            for each in response.refused
        ],
    }
    return HttpAnswer(200, msgspec.json.encode(answer))


def _model(model: pb.Model) -> dict[str, Any]:
    manifest = model.manifest
    described: dict[str, Any] = {
        "name": model.name,
        "version": model.version,
        "default": model.default,
        "version_labels": list(model.version_labels),
        "labels": list(manifest.labels),
        "execution_provider": model.execution_provider,
    }
    if manifest.HasField("input"):
        described["output"] = "softmax" if is_softmax(manifest) else "multi_label"
        described["input"] = {
            "height": manifest.input.height,
            "width": manifest.input.width,
            "channels": manifest.input.channels,
            "kind": _word(bundle_pb2.ImageKind.Name(manifest.input.kind), "IMAGE_KIND_"),
            "resize": manifest.input.resize,
            "file_formats": FILE_FORMATS.get(manifest.input.resize, ()),
        }
    if manifest.thresholds:
        thresholds = shortest(manifest.thresholds)
        described["thresholds"] = dict(zip(manifest.labels, thresholds, strict=True))
    if manifest.parameters:
        described["parameters"] = manifest.parameters
    if manifest.precision:
        described["precision"] = _word(bundle_pb2.Precision.Name(manifest.precision), "PRECISION_")
    if manifest.metrics:
        described["metrics"] = dict(sorted(manifest.metrics.items()))
    if manifest.HasField("created"):
        described["created"] = manifest.created.ToJsonString()
    return described


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _name_of_body(text: str) -> str:
    return text.replace("encoded.images[0]", "body", 1)


def _name_of_files(text: str) -> str:
    return text.replace("encoded.images", "files", 1)


class _Parts:
    """The files of a multipart body, as its parser finds them."""

    def __init__(self, most: int) -> None:
        self.files: list[bytes] = []
        self.ended = False
        self._most = most
        self._data = bytearray()
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}

    def begin(self) -> None:
        if len(self.files) == self._most:
            raise wrong(f"files: expected 1 to {self._most}, got more")
        self._data = bytearray()
        self._headers = {}

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def headers_end(self) -> None:
        where = f"files[{len(self.files)}]"
        _, parameters = parse_options_header(self._headers.get(b"content-disposition"))
        if b"filename" not in parameters and b"content-type" not in self._headers:
            name = parameters.get(b"name", b"").decode(errors="replace")
            raise wrong(f"{where}: expected {_FILE}, got the form field {quoted(name)}")
        if b"content-transfer-encoding" in self._headers:
            value = self._headers[b"content-transfer-encoding"].decode(errors="replace")
            if value.strip().lower() not in ("binary", "8bit", "7bit"):
                raise wrong(f"{where}: expected bytes as they are, got them as {quoted(value)}")

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def part_end(self) -> None:
        self.files.append(bytes(self._data))

    def end(self) -> None:
        self.ended = True


def _files(request: HttpRequest, most: int) -> list[bytes]:
    """Returns the files of a multipart body.

    Raises:
        Problem: if it is not valid, or has none or too many.
    """
    kind, parameters = parse_options_header(request.headers["content-type"])
    if kind != b"multipart/form-data":
        raise Problem(
            415,
            "UNSUPPORTED_TYPE",
            f"content-type: expected multipart/form-data for several files, got "
            f"{quoted(request.content_type())}",
        )
    boundary = parameters.get(b"boundary", b"")
    # Its longest, by RFC 2046.
    if not 1 <= len(boundary) <= 70:
        raise wrong(f"boundary: expected 1 to 70 bytes, got {len(boundary)}")
    parts = _Parts(most)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.begin,
            "on_part_data": parts.data,
            "on_part_end": parts.part_end,
            "on_header_field": parts.header_name,
            "on_header_value": parts.header_value,
            "on_header_end": parts.header_end,
            "on_headers_finished": parts.headers_end,
            "on_end": parts.end,
        },
    )
    try:
        parser.write(request.body)
        parser.finalize()
    except MultipartParseError as error:
        raise wrong(f"body: expected multipart/form-data, got other bytes: {error}") from error
    if not parts.ended:
        raise wrong("body: expected multipart/form-data with its last boundary, got none")
    if not parts.files:
        raise wrong(f"files: expected 1 to {most}, got none")
    return parts.files

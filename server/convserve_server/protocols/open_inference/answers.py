"""From what a model gave to the bytes of a ModelInferResponse; elements are always raw."""

import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import InvalidRequest, quoted
from convserve_server.engines.base import Outputs
from convserve_server.engines.tensors import DTYPES, Tensors
from convserve_server.protocols.open_inference.contents import refuse_shared_memory
from convserve_server.protocols.open_inference.requests import whole_number

#: The bytes before the fields id and raw_output_contents.
_ID_KEY = bytes([pb.ModelInferResponse.ID_FIELD_NUMBER << 3 | 2])
_RAW_KEY = bytes([pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2])

#: Names of outputs that are shown in an error.
_MAX_NAMES = 16
_LENGTH_BYTES = 4


class Wanted(NamedTuple):
    """An output that is asked for.

    Attributes:
        position: in the model's signature.
        classes: only so many of the greatest elements, as texts; 0: the tensor itself.
    """

    position: int
    classes: int


class _Head(NamedTuple):
    """What describes an output in a response."""

    position: int
    datatype: str
    shape: tuple[int, ...]


def wanted_outputs(request: pb.ModelInferRequest, model: ModelDescription) -> Sequence[Wanted]:
    """Returns the outputs that a request asks for; all if it asks for none.

    Raises:
        InvalidRequest: if the model has no such output, or it is asked for twice; if it has no
            greatest elements.
    """
    if not request.outputs:
        return _all_outputs(model)
    specs = model.signature.outputs
    positions = {spec.name: position for position, spec in enumerate(specs)}
    found: dict[str, Wanted] = {}
    for number, output in enumerate(request.outputs):
        field = f"outputs[{number}]"
        if output.name not in positions:
            names = " or ".join(quoted(spec.name) for spec in specs[:_MAX_NAMES])
            raise InvalidRequest(
                f"{field}.name",
                f"expected {names} for model {model.name}, got {quoted(output.name)}",
            )
        if output.name in found:
            raise InvalidRequest(
                f"{field}.name", f"expected each output once, got {quoted(output.name)} again"
            )
        classes = 0
        if output.parameters:
            refuse_shared_memory(field, output.parameters)
            if "classification" in output.parameters:
                field += ".parameters.classification"
                classes = whole_number(output.parameters["classification"], field)
        position = positions[output.name]
        datatype = specs[position].datatype
        if classes and datatype in ("BYTES", "BOOL"):
            raise InvalidRequest(field, f"expected an output of numbers, got one of {datatype}")
        found[output.name] = Wanted(position, classes)
    return tuple(found.values())


@lru_cache(maxsize=256)
def _all_outputs(model: ModelDescription) -> Sequence[Wanted]:
    return tuple(Wanted(position, 0) for position in range(len(model.signature.outputs)))


def response_of(
    model: ModelDescription, request_id: str, wanted: Sequence[Wanted], outputs: Outputs
) -> bytes:
    """Returns a serialized ModelInferResponse.

    What describes the tensors is the same in many responses and serialized once; protobuf accepts
    fields in any order. Source: https://protobuf.dev/programming-guides/encoding/#order.

    Args:
        model: that answered.
        request_id: repeated in the response.
        wanted: which outputs.
        outputs: of the model; of a bundle one array.
    """
    arrays = outputs.arrays if isinstance(outputs, Tensors) else (outputs,)
    name = request_id.encode()
    begin = _ID_KEY + _length(len(name)) + name if name else b""
    if len(wanted) == 1 and not wanted[0].classes:
        # By far the most frequent case: all but the elements is known by the shape.
        position = wanted[0].position
        array, datatype = arrays[position], model.signature.outputs[position].datatype
        if datatype != "BYTES":
            return begin + _before_elements(model, position, array.shape) + _raw(array, datatype)
    heads: list[_Head] = []
    parts: list[bytes] = []
    for position, classes in wanted:
        array, datatype = arrays[position], model.signature.outputs[position].datatype
        if classes:
            array, datatype = _greatest(array, classes, model), "BYTES"
        heads.append(_Head(position, datatype, array.shape))
        data = _raw(array, datatype)
        parts += (_RAW_KEY, _length(len(data)), data)
    return b"".join((begin, _head(model, tuple(heads)), *parts))


@lru_cache(maxsize=1024)
def _before_elements(model: ModelDescription, position: int, shape: tuple[int, ...]) -> bytes:
    """Returns all of a response with one output but its elements, which are not BYTES."""
    datatype = model.signature.outputs[position].datatype
    size = math.prod(shape) * DTYPES[datatype].itemsize
    return _head(model, (_Head(position, datatype, shape),)) + _RAW_KEY + _length(size)


@lru_cache(maxsize=1024)
def _head(model: ModelDescription, heads: tuple[_Head, ...]) -> bytes:
    """Returns the fields of a response that describe it, serialized."""
    names = [spec.name for spec in model.signature.outputs]
    response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version))
    for position, datatype, shape in heads:
        response.outputs.add(name=names[position], datatype=datatype, shape=shape)
    return response.SerializeToString()


def _raw(array: NDArray[Any], datatype: str) -> bytes:
    """Returns the elements of a tensor in row-major order, little-endian."""
    if datatype == "BYTES":
        texts = [text.encode() if isinstance(text, str) else text for text in array.ravel()]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def _greatest(array: NDArray[Any], classes: int, model: ModelDescription) -> NDArray[Any]:
    """Returns the greatest elements of each row as texts "value:index:label", greatest first.

    Fewer than are asked for if a row has fewer, as Triton does it; ties by index.

    Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/
    extension_classification.md

    Args:
        array: of numbers, of any rank; of a model that is not batched it is one row.
        classes: how many, at least 1.
        model: that gave it.

    Returns: bytes [N, k], or [k] if the model is not batched.
    """
    batched = model.signature.batched
    rows = array.reshape(len(array), -1) if batched else array.reshape(1, -1)
    last = rows.shape[1] - 1
    # Of the reversed row, so that what comes first wins among equals.
    order = last - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :classes]
    values = np.take_along_axis(rows, order, axis=1)
    form = "f" if array.dtype.kind == "f" else "d"
    texts = np.empty(order.shape, np.object_)
    for position, index in np.ndenumerate(order):
        label = f":{model.labels[index]}" if model.labels else ""
        texts[position] = f"{values[position]:{form}}:{index}{label}".encode()
    return texts if batched else texts[0]


def _length(size: int) -> bytes:
    """Returns a length as protobuf writes it: seven bits in each byte, the lowest first."""
    encoded = bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)

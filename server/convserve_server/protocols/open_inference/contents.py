"""The tensors of a request as arrays: raw or typed, of exactly the size that their shapes state."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import InvalidRequest, listed, quoted
from convserve_server.engines.signatures import OPEN, TensorSpec
from convserve_server.engines.tensors import DTYPES, Tensors

_InputTensor = pb.ModelInferRequest.InferInputTensor

#: The field of typed contents for each datatype. FP16 has none.
_TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
#: Those that are narrower than the elements of their field, with the type of these.
_WIDE = {
    "INT8": np.dtype(np.int32),
    "INT16": np.dtype(np.int32),
    "UINT8": np.dtype(np.uint32),
    "UINT16": np.dtype(np.uint32),
}

#: The types of raw elements.
_LITTLE_ENDIAN = {name: dtype.newbyteorder("<") for name, dtype in DTYPES.items()}

#: Before each element of raw BYTES: its length, little-endian.
_LENGTH_BYTES = 4
#: Sizes of a shape that are shown.
_MAX_SIZES = 16


def read_tensors(request: pb.ModelInferRequest, model: ModelDescription, max_rows: int) -> Tensors:
    """Returns the tensors of a request in the order of the model's signature.

    Args:
        request: to any model.
        model: that will run on them.
        max_rows: most rows in one request.

    Raises:
        InvalidRequest: if they are not what the model expects.
    """
    arrays: list[NDArray[Any]] = []
    rows = first = 0
    given = matched_inputs(request, model)
    for spec, (index, tensor) in zip(model.signature.inputs, given, strict=True):
        if tensor.datatype != spec.datatype:
            raise wrong_datatype(index, tensor.datatype, spec.datatype, model)
        shape = checked_shape(index, tensor, spec, model)
        if model.signature.batched:
            if not arrays:
                check_rows(index, shape[0], model, max_rows)
                rows, first = shape[0], index
            elif shape[0] != rows:
                raise InvalidRequest(
                    f"inputs[{index}].shape",
                    f"expected {rows} rows, as inputs[{first}] has, got {shape[0]}",
                )
        arrays.append(elements(request, index, spec.datatype, shape))
    return Tensors(tuple(arrays), rows if model.signature.batched else 1)


def matched_inputs(
    request: pb.ModelInferRequest, model: ModelDescription
) -> Sequence[tuple[int, _InputTensor]]:
    """Returns the tensors of a request in the order of the model's inputs, each after its index.

    Raises:
        InvalidRequest: if one is unknown, missing or there twice, or raw contents do not fit.
    """
    specs, given = model.signature.inputs, request.inputs
    if len(given) == len(specs) == 1:
        # By far the most frequent case.
        tensor = given[0]
        if tensor.name == specs[0].name:
            _check_raw(request, given)
            return ((0, tensor),)
    names = [spec.name for spec in specs]
    positions: dict[str, int] = {}
    # One more than the model has is unknown or there twice: a request may have any number.
    for index, tensor in enumerate(given):
        field = f"inputs[{index}].name"
        if tensor.name not in names:
            raise InvalidRequest(
                field,
                f"expected {' or '.join(map(quoted, names[:_MAX_SIZES]))} for model {model.name}, "
                f"got {quoted(tensor.name)}",
            )
        if tensor.name in positions:
            raise InvalidRequest(
                field, f"expected each input once, got {quoted(tensor.name)} again"
            )
        positions[tensor.name] = index
    if len(positions) < len(names):
        raise InvalidRequest(
            "inputs",
            f"expected {listed(names)} for model {model.name}, got {listed(list(positions))}",
        )
    _check_raw(request, given)
    return [(positions[name], given[positions[name]]) for name in names]


def _check_raw(request: pb.ModelInferRequest, inputs: Sequence[_InputTensor]) -> None:
    """Checks that the contents of a request are all raw or all typed, and one for each input.

    Raises:
        InvalidRequest: if they are mixed, or raw ones are more or fewer than the inputs; if an
            input is in shared memory.
    """
    raw = len(request.raw_input_contents)
    for index, tensor in enumerate(inputs):
        # First, for such an input has no contents.
        if tensor.parameters:
            refuse_shared_memory(f"inputs[{index}]", tensor.parameters)
        if raw and tensor.HasField("contents") and tensor.contents.ByteSize():
            raise InvalidRequest(
                f"inputs[{index}].contents", "expected none beside raw_input_contents, got some"
            )
    if raw and raw != len(inputs):
        raise InvalidRequest(
            "raw_input_contents", f"expected one for each of {len(inputs)} inputs, got {raw}"
        )


def refuse_shared_memory(field: str, parameters: Any) -> None:
    """Refuses a tensor that is not in the message.

    Args:
        field: the tensor.
        parameters: of it.

    Raises:
        InvalidRequest: if it is in shared memory.
    """
    for name in ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"):
        if name in parameters:
            raise InvalidRequest(
                f"{field}.parameters.{name}",
                "expected a tensor in the message, since this server shares no memory with "
                "clients, got one in shared memory",
            )


def wrong_datatype(
    index: int, given: str, expected: str, model: ModelDescription
) -> InvalidRequest:
    """Returns the error of a tensor with another datatype than a model expects."""
    return InvalidRequest(
        f"inputs[{index}].datatype",
        f"expected {expected} for model {model.name}, got {quoted(given)}",
    )


def checked_shape(
    index: int, tensor: _InputTensor, spec: TensorSpec, model: ModelDescription
) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Raises:
        InvalidRequest: if it is not what a model expects.
    """
    shape, expected = tuple(tensor.shape[: len(spec.shape) + 1]), spec.shape
    if len(shape) != len(expected):
        raise wrong_shape(index, tensor, f"{list(expected)}", model)
    for has, must in zip(shape, expected, strict=True):
        if has < 0:
            # Beside the -1 of what is expected it would look right.
            raise wrong_shape(index, tensor, "no negative sizes", model)
        if has != must != OPEN:
            raise wrong_shape(index, tensor, f"{list(expected)}", model)
    return shape


def wrong_shape(
    index: int, tensor: _InputTensor, expected: str, model: ModelDescription
) -> InvalidRequest:
    """Returns the error of a tensor with another shape than a model expects."""
    given = tensor.shape
    shown = ", ".join(map(str, given[:_MAX_SIZES]))
    more = f" and {len(given) - _MAX_SIZES} more sizes" if len(given) > _MAX_SIZES else ""
    return InvalidRequest(
        f"inputs[{index}].shape",
        f"expected {expected} for model {model.name}, got [{shown}]{more}",
    )


def check_rows(index: int, rows: int, model: ModelDescription, max_rows: int) -> None:
    """Checks how many rows a request has.

    Raises:
        InvalidRequest: if there are none, or too many.
    """
    if not 1 <= rows <= max_rows:
        raise InvalidRequest(
            f"inputs[{index}].shape",
            f"expected 1 to {max_rows} rows for model {model.name}, got {rows}",
        )


def elements(
    request: pb.ModelInferRequest, index: int, datatype: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Returns the elements of a tensor, of raw contents a view of the message's bytes.

    Nothing is allocated before the message is known to hold as much as the shape states.

    Args:
        request: whose raw contents were checked; see matched_inputs.
        index: of the tensor.
        datatype: of its elements, one of DTYPES.
        shape: its sizes, none negative.

    Raises:
        InvalidRequest: if the contents are not those of such a tensor.
    """
    # Of Python's integers: it may be of any size.
    count = math.prod(shape)
    raw = request.raw_input_contents
    if not raw:
        return _typed(request.inputs[index], index, datatype, count).reshape(shape)
    data = raw[index]
    if datatype == "BYTES":
        return _array_of(_split(data, count, _raw_field(index))).reshape(shape)
    dtype = _LITTLE_ENDIAN[datatype]
    size = count * dtype.itemsize
    if len(data) != size:
        raise InvalidRequest(
            _raw_field(index),
            f"expected {size} bytes for {datatype} {list(shape)}, got {len(data)}",
        )
    if datatype == "BOOL" and count:
        most = np.frombuffer(data, np.uint8).max()
        if most > 1:
            raise InvalidRequest(_raw_field(index), f"expected bytes 0 or 1 for BOOL, got {most}")
    return np.frombuffer(data, dtype).reshape(shape)


def _raw_field(index: int) -> str:
    return f"raw_input_contents[{index}]"


def files_of(request: pb.ModelInferRequest, count: int) -> list[bytes]:
    """Returns the elements of the first tensor, which is of BYTES.

    Args:
        request: whose raw contents were checked; see matched_inputs.
        count: that its shape states.

    Raises:
        InvalidRequest: if there are more or fewer.
    """
    if request.raw_input_contents:
        return _split(request.raw_input_contents[0], count, _raw_field(0))
    return list(_typed_values(request.inputs[0], 0, "BYTES", count))


def _typed(tensor: _InputTensor, index: int, datatype: str, count: int) -> NDArray[Any]:
    """Returns the elements of a tensor that are typed, one after the other.

    Raises:
        InvalidRequest: see _typed_values; or if one is out of the range of its datatype.
    """
    values = _typed_values(tensor, index, datatype, count)
    if datatype == "BYTES":
        return _array_of(list(values))
    dtype = DTYPES[datatype]
    wide = np.fromiter(values, _WIDE.get(datatype, dtype), count)
    if datatype in _WIDE and count:
        limits = np.iinfo(dtype)
        for value in (wide.min(), wide.max()):
            if not limits.min <= value <= limits.max:
                raise InvalidRequest(
                    f"inputs[{index}].contents.{_TYPED[datatype]}",
                    f"expected {limits.min} to {limits.max} for {datatype}, got {value}",
                )
    return wide.astype(dtype, copy=False)


def _typed_values(tensor: _InputTensor, index: int, datatype: str, count: int) -> Any:
    """Returns the field with the elements of a tensor.

    Raises:
        InvalidRequest: if it does not hold so many, or others hold some.
    """
    field = f"inputs[{index}].contents"
    name = _TYPED.get(datatype)
    if name is None:
        raise InvalidRequest(field, f"expected raw_input_contents for {datatype}, got none")
    for descriptor, _ in tensor.contents.ListFields():
        if descriptor.name != name:
            raise InvalidRequest(field, f"expected {name} for {datatype}, got {descriptor.name}")
    values = getattr(tensor.contents, name)
    if len(values) != count:
        raise InvalidRequest(
            f"{field}.{name}",
            f"expected {count} elements for {datatype} {list(tensor.shape)}, got {len(values)}",
        )
    return values


def _split(data: bytes, count: int, field: str) -> list[bytes]:
    """Returns the elements of raw BYTES.

    Raises:
        InvalidRequest: if there are not so many.
    """
    parts: list[bytes] = []
    at = 0
    while at + _LENGTH_BYTES <= len(data) and len(parts) < count:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            break
        parts.append(data[start:at])
    if len(parts) != count or at != len(data):
        raise InvalidRequest(
            field,
            f"expected {count} elements of BYTES, each after its length of {_LENGTH_BYTES} bytes, "
            f"got {len(data)} bytes that are not those",
        )
    return parts


def _array_of(parts: list[bytes]) -> NDArray[Any]:
    """Returns an array of objects; NumPy's own way would cut zeros at their ends."""
    array = np.empty(len(parts), np.object_)
    array[:] = parts
    return array

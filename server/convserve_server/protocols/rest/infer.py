"""Inference of Open Inference by REST: tensors as JSON, or as bytes behind it.

Behind the JSON, whose length the header Inference-Header-Content-Length states, are the bytes of
each tensor that states binary_data_size, in their order. Answers are the same, for outputs that ask
for binary_data.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
and https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.errors import quoted
from convserve_server.protocols.request_ids import REQUEST_ID
from convserve_server.protocols.rest.errors import failure_answer
from convserve_server.protocols.rest.json_bodies import read_json
from convserve_server.protocols.rest.json_tensors import json_elements, raw_elements
from convserve_server.protocols.rest.messages import (
    JSON,
    HttpAnswer,
    HttpRequest,
    Operation,
    RestOptions,
)
from convserve_server.protocols.rest.parameters import (
    number_of,
    timeout_of,
    wrong,
)

SERVICE = "/inference.GRPCInferenceService"

#: Length of the JSON, of a body that has more.
HEADER_LENGTH = "inference-header-content-length"
_BINARY = "application/octet-stream"

_SIZE = "binary_data_size"

#: Of tensors in a request, and of parameters of each.
_MOST_INPUTS = _MOST_PARAMETERS = 1024

Value = bool | int | float | str
Parameters = dict[str, Value]
_Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]

_RAW_FIELD = re.compile(r"\braw_input_contents\[(\d+)\]")
_CONTENTS = re.compile(r"\b(inputs\[\d+\])\.contents(\.\w+_contents)?")


class _Input(msgspec.Struct):
    name: str
    shape: list[_Size]
    datatype: str
    parameters: Parameters | None = None
    data: Raw | UnsetType = UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[_Output] | None = None


class _Binary(NamedTuple):
    """Which outputs are to be bytes.

    Attributes:
        named: those for which the request says so, or not.
        others: all that it does not name.
    """

    named: Mapping[str, bool]
    others: bool


_DECODER = msgspec.json.Decoder(_Request)


def infer(request: HttpRequest, parameters: Mapping[str, str], _: RestOptions) -> Operation:
    """Returns the call that runs a model on the tensors of a request.

    Raises:
        Problem: if they are not valid in themselves.
    """
    head, rest = _parts(request)
    given = read_json(head, _DECODER)
    if len(given.inputs) > _MOST_INPUTS:
        raise wrong(f"inputs: expected at most {_MOST_INPUTS}, got {len(given.inputs)}")
    call = pb.ModelInferRequest(
        model_name=parameters["model"],
        model_version=parameters.get("version", ""),
        id=given.id or request.headers.get(REQUEST_ID, ""),
    )
    at = 0
    for index, tensor in enumerate(given.inputs):
        field = f"inputs[{index}]"
        own = tensor.parameters or {}
        message = call.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if _SIZE in own:
            size = own.pop(_SIZE)
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise wrong(f"{field}.parameters.{_SIZE}: expected a size, got {size!r}")
            if tensor.data is not UNSET:
                raise wrong(f"{field}.data: expected none beside {_SIZE}, got some")
            if at + size > len(rest):
                raise wrong(
                    f"{field}.parameters.{_SIZE}: expected at most the {len(rest) - at} bytes that "
                    f"are left behind the JSON, got {size}"
                )
            call.raw_input_contents.append(rest[at : at + size])
            at += size
        elif not isinstance(tensor.data, UnsetType):
            call.raw_input_contents.append(
                raw_elements(bytes(tensor.data), tensor.datatype, tensor.shape, f"{field}.data")
            )
        elif "shared_memory_region" not in own:
            raise wrong(
                f"{field}.data: expected an array, or {_SIZE} of what is behind the JSON, "
                "got neither"
            )
        set_parameters(message.parameters, own, field)
    if at != len(rest):
        raise wrong(
            f"body: expected {at} bytes behind the JSON, as the inputs state, got {len(rest)}"
        )
    of_all = given.parameters or {}
    others = _truth(of_all, "binary_data_output", "parameters") or False
    set_parameters(call.parameters, of_all, "")
    named: dict[str, bool] = {}
    for index, output in enumerate(given.outputs or ()):
        own = output.parameters or {}
        binary = _truth(own, "binary_data", f"outputs[{index}].parameters")
        named[output.name] = others if binary is None else binary
        set_parameters(call.outputs.add(name=output.name).parameters, own, f"outputs[{index}]")
    return Operation(
        f"{SERVICE}/ModelInfer",
        call.SerializeToString(),
        partial(_inferred, binary=_Binary(named, others)),
        partial(failure_answer, rename=rename),
        timeout_of(request),
    )


def set_parameters(message: Any, given: Parameters, field: str) -> None:
    """Sets parameters of a message as JSON gives them.

    Args:
        message: the map, of InferParameter or ModelRepositoryParameter.
        given: by their names.
        field: whose they are; empty for the request's own.

    Raises:
        Problem: if a number is too large, or there are too many.
    """
    path = f"{field}.parameters" if field else "parameters"
    if len(given) > _MOST_PARAMETERS:
        raise wrong(f"{path}: expected at most {_MOST_PARAMETERS}, got {len(given)}")
    for name, value in given.items():
        if isinstance(value, bool):
            message[name].bool_param = value
        elif isinstance(value, str):
            message[name].string_param = value
        elif isinstance(value, float):
            message[name].double_param = value
        elif -(2**63) <= value < 2**63:
            message[name].int64_param = value
        else:
            raise wrong(f"{path}.{name}: expected a number of 64 bits, got {value}")


def rename(text: str) -> str:
    """Returns a text with the fields of the message by their names in JSON."""
    text = _RAW_FIELD.sub(r"inputs[\1].data", text)
    return _CONTENTS.sub(r"\1.data", text)


def _parts(request: HttpRequest) -> tuple[bytes, bytes]:
    """Returns the JSON of a request, and the bytes behind it."""
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        return request.body, b""
    size = number_of(HEADER_LENGTH, length, len(request.body))
    return request.body[:size], request.body[size:]


def _truth(parameters: Parameters, name: str, where: str) -> bool | None:
    """Returns a parameter that is a truth value, and removes it; None if it is not there."""
    value = parameters.pop(name, None)
    if value is not None and not isinstance(value, bool):
        got = quoted(value) if isinstance(value, str) else value
        raise wrong(f"{where}.{name}: expected true or false, got {got}")
    return value


def _inferred(payload: bytes, binary: _Binary) -> HttpAnswer:
    """Returns the answer of an inference.

    Raises:
        Problem: if JSON cannot say an element of an output.
    """
    response = pb.ModelInferResponse.FromString(payload)
    answer: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
    }
    if response.id:
        answer["id"] = response.id
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for index, (output, data) in enumerate(
        zip(response.outputs, response.raw_output_contents, strict=True)
    ):
        described: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if binary.named.get(output.name, binary.others):
            described["parameters"] = {_SIZE: len(data)}
            parts.append(data)
        else:
            described["data"] = json_elements(data, output.datatype, f"outputs[{index}].data")
        outputs.append(described)
    answer["outputs"] = outputs
    head = msgspec.json.encode(answer)
    if not parts:
        return HttpAnswer(200, head, JSON)
    headers = ((HEADER_LENGTH, str(len(head))),)
    return HttpAnswer(200, b"".join((head, *parts)), _BINARY, headers)

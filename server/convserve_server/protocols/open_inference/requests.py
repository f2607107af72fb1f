"""What a request asks for beside its tensors: which version, until when, how urgently."""

from collections.abc import Mapping
from typing import NamedTuple

from convserve_bundle.contract import VERSION_RULE, is_version
from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.errors import InvalidRequest, quoted
from convserve_server.core.jobs import Priority
from convserve_server.core.models import VersionChoice
from convserve_server.protocols.base import Call
from convserve_server.protocols.priority import priority_of

#: Longer than any that clients make.
_MAX_ID_BYTES = 1024

#: The byte before the field model_name, and the first of a length that has more than one.
_MODEL_KEY = pb.ModelInferRequest.MODEL_NAME_FIELD_NUMBER << 3 | 2
_LONG = 0x80

#: Parameters of Triton's sequences, of which there are none here.
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_MICROSECOND = 1e-6


class Terms(NamedTuple):
    """How a call wants to be served.

    Attributes:
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        priority: of the call; None: that of the model.
    """

    deadline: float | None
    priority: Priority | None


def named_model(payload: bytes) -> str | None:
    """Returns the model that the bytes of a ModelInferRequest name, without parsing them.

    None if they do not begin as all clients write them: with the name. Of bytes that name several
    models, which no client writes, this is the first.

    Source: https://protobuf.dev/programming-guides/encoding/ (length-delimited fields).
    """
    try:
        if payload[0] != _MODEL_KEY or payload[1] >= _LONG:
            return None
        return payload[2 : 2 + payload[1]].decode()
    except (IndexError, UnicodeDecodeError):
        return None


def check_id(request: pb.ModelInferRequest) -> None:
    """Checks the id of a request, which is repeated in its answer.

    Raises:
        InvalidRequest: if it is too long.
    """
    size = len(request.id.encode())
    if size > _MAX_ID_BYTES:
        raise InvalidRequest("id", f"expected at most {_MAX_ID_BYTES} bytes, got {size}")


def version_choice(text: str, field: str) -> VersionChoice:
    """Returns the version that a text asks for: digits a version, else a label, empty none.

    Args:
        text: of a request.
        field: where it was.

    Raises:
        InvalidRequest: if it is a number that no version has.
    """
    if not text:
        return None
    if is_version(text):
        return int(text)
    if text.isascii() and text.isdecimal():
        raise InvalidRequest(field, f"{VERSION_RULE}, or a label, got {quoted(text)}")
    return text


def terms(call: Call, request: pb.ModelInferRequest) -> Terms:
    """Returns how a call wants to be served, by its header fields and the request's parameters.

    Raises:
        InvalidRequest: if a value is none that there can be, or the call is part of a sequence.
    """
    deadline, priority = call.deadline, priority_of(call)
    parameters: Mapping[str, pb.InferParameter] = request.parameters
    if not parameters:
        return Terms(deadline, priority)
    for name in _SEQUENCE:
        if name in parameters and _value(parameters[name]):
            raise InvalidRequest(
                f"parameters.{name}",
                "expected none, since no model here keeps state between requests, got one",
            )
    timeout_us = _whole_number(parameters, "timeout")
    if timeout_us:
        until = call.arrived + timeout_us * _MICROSECOND
        deadline = until if deadline is None else min(deadline, until)
    level = _whole_number(parameters, "priority")
    if level:
        priority = Priority.INTERACTIVE if level == 1 else Priority.BATCH
    return Terms(deadline, priority)


def most_urgent(call: Call) -> Priority:
    """Returns the most urgent priority that a call may have before its request is parsed."""
    del call  # a parameter of the request outdoes its header fields
    return Priority.INTERACTIVE


def _whole_number(parameters: Mapping[str, pb.InferParameter], name: str) -> int:
    """Returns a parameter that is a whole number, 0 if there is none.

    Raises:
        InvalidRequest: if it is not a whole number, or negative.
    """
    if name not in parameters:
        return 0
    return whole_number(parameters[name], f"parameters.{name}")


def whole_number(parameter: pb.InferParameter, field: str) -> int:
    """Returns the value of a parameter that must be a whole number.

    Args:
        parameter: of a request.
        field: where it is.

    Raises:
        InvalidRequest: if it is not a whole number, or negative.
    """
    value = _value(parameter)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        got = quoted(value) if isinstance(value, str) else value
        raise InvalidRequest(field, f"expected a whole number that is not negative, got {got}")
    return value


def _value(parameter: pb.InferParameter) -> bool | int | float | str | None:
    """Returns the value of a parameter; None if it has none."""
    kind = parameter.WhichOneof("parameter_choice")
    value: bool | int | float | str | None = None if kind is None else getattr(parameter, kind)
    return value

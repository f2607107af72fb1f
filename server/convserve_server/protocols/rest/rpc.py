"""Connect and gRPC-Web, unary: what browsers speak where gRPC needs more than they can do.

The path is that of the method, "/package.Service/Method". Bytes go through; only Connect's JSON is
read, for services whose messages this process knows.

Source: https://connectrpc.com/docs/protocol/ (unary) and
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md.
"""

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message
from google.rpc import code_pb2

from convserve_server.core.errors import ServeError, fitting, quoted
from convserve_server.protocols.base import Failure
from convserve_server.protocols.grpc_errors import failure_status, to_failure
from convserve_server.protocols.rest.encodings import decoded_body
from convserve_server.protocols.rest.errors import code_of, headers_of
from convserve_server.protocols.rest.json_bodies import MOST_VALUES, check_values
from convserve_server.protocols.rest.messages import (
    JSON,
    Fields,
    HttpAnswer,
    HttpRequest,
    Operation,
    Problem,
)
from convserve_server.protocols.rest.parameters import timeout_of, wrong

_PROTO = "application/proto"
_WEB = "application/grpc-web"
_WEB_TEXT = "application/grpc-web-text"
_TYPES = (_PROTO, JSON, _WEB, f"{_WEB}+proto", _WEB_TEXT, f"{_WEB_TEXT}+proto")

_CONNECT_TIMEOUT, _GRPC_TIMEOUT = "connect-timeout-ms", "grpc-timeout"
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

#: A frame's flags, and its length as four bytes.
_FRAME_HEAD = 5
_COMPRESSED, _TRAILERS = 0x01, 0x80

#: All of printable ASCII but the percent sign; see grpc-message in gRPC's PROTOCOL-HTTP2.md.
_UNCHANGED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

#: Of JSON in one request: protobuf reads it in Python, eight times as slowly as msgspec does.
_MOST_VALUES = MOST_VALUES // 8

_METHOD = re.compile(r"/[A-Za-z_][\w.]*\.[A-Za-z_]\w*/[A-Za-z_]\w*", re.ASCII)

#: Of errors that are found here, by their status of HTTP.
_CODES = {
    413: code_pb2.RESOURCE_EXHAUSTED,
    415: code_pb2.UNIMPLEMENTED,
    501: code_pb2.UNIMPLEMENTED,
}


class _Types(NamedTuple):
    """The messages of a method."""

    request: type[Message]
    response: type[Message]


def is_method(path: str) -> bool:
    """Returns whether a path is that of a method, whether or not it exists."""
    return bool(_METHOD.fullmatch(path))


def call(
    request: HttpRequest, most: int, streams: frozenset[str], admit: Callable[[], None]
) -> HttpAnswer | Operation:
    """Returns the call that a request is.

    Args:
        request: whose path is that of a method.
        most: bytes of a message.
        streams: the paths of streaming methods.
        admit: raises a ServeError if its caller may not make it.

    Raises:
        Problem: if it is of neither protocol.
    """
    kind = request.content_type()
    if kind not in _TYPES:
        raise Problem(
            415,
            "UNSUPPORTED_TYPE",
            f"content-type: expected {', '.join(_TYPES)}, got {quoted(kind)}",
            (("accept-post", ", ".join(_TYPES)),),
        )
    failed: Callable[[Failure], HttpAnswer] = (
        partial(_web_failure, kind=kind) if kind.startswith(_WEB) else connect_failure
    )
    try:
        admit()
        if request.path in streams:
            raise Problem(
                501,
                "UNIMPLEMENTED",
                f"method: expected a unary one, got {request.path}, which needs gRPC",
            )
        body = decoded_body(request, most)
        if kind.startswith(_WEB):
            return _web_call(request, body, kind, failed)
        return _connect_call(request, body, kind, failed)
    except ServeError as error:
        return failed(to_failure(error))
    except Problem as problem:
        code = _CODES.get(problem.status, code_pb2.INVALID_ARGUMENT)
        return failed(Failure(code, fitting(str(problem)), reason=problem.reason))


def connect_failure(failure: Failure) -> HttpAnswer:
    """Returns Connect's answer for a failure."""
    error: dict[str, Any] = {"code": code_of(failure.code).name, "message": failure.message}
    details = [
        {
            "type": detail.type_url.rpartition("/")[2],
            "value": base64.b64encode(detail.value).decode().rstrip("="),
        }
        for detail in failure_status(failure).details
    ]
    if details:
        error["details"] = details
    headers = headers_of(failure)
    return HttpAnswer(code_of(failure.code).status, msgspec.json.encode(error), headers=headers)


def _connect_call(
    request: HttpRequest, body: bytes, kind: str, failed: Callable[[Failure], HttpAnswer]
) -> Operation:
    version = request.headers.get("connect-protocol-version", "1")
    if version != "1":
        raise wrong(f"connect-protocol-version: expected 1, got {quoted(version)}")
    timeout_s = timeout_of(request, _CONNECT_TIMEOUT)
    if kind == _PROTO:
        answer = partial(HttpAnswer, 200, content_type=_PROTO)
        return Operation(request.path, body, answer, failed, timeout_s)
    types = _types_of(request.path)
    if types is None:
        raise Problem(501, "UNIMPLEMENTED", f"no method {quoted(request.path)}")
    payload = _from_json(body, types.request)
    return Operation(
        request.path, payload, partial(_json_answer, kind=types.response), failed, timeout_s
    )


def _from_json(body: bytes, kind: type[Message]) -> bytes:
    """Returns the bytes of a message that is given as JSON.

    Raises:
        Problem: if it is not.
    """
    name = kind.DESCRIPTOR.full_name
    check_values(body, _MOST_VALUES)
    try:
        return json_format.Parse(body.decode(), kind()).SerializeToString()
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise wrong(f"request: expected a {name} as JSON, got others: {error}") from error
    except RecursionError as error:
        raise wrong(f"request: expected a {name} as JSON, got brackets without end") from error


def _json_answer(payload: bytes, kind: type[Message]) -> HttpAnswer:
    text = json_format.MessageToJson(kind.FromString(payload), indent=None)
    return HttpAnswer(200, text.encode())


@lru_cache(maxsize=256)
def _types_of(path: str) -> _Types | None:
    _, service, method = path.split("/")
    try:
        # The pool has these, though its types do not say so.
        pool: Any = descriptor_pool.Default()
        found = pool.FindServiceByName(service).methods_by_name[method]
    except KeyError:
        return None
    return _Types(
        message_factory.GetMessageClass(found.input_type),
        message_factory.GetMessageClass(found.output_type),
    )


def _web_call(
    request: HttpRequest, body: bytes, kind: str, failed: Callable[[Failure], HttpAnswer]
) -> Operation:
    if kind.startswith(_WEB_TEXT):
        body = _from_base64(body)
    timeout_s = None
    value = request.headers.get(_GRPC_TIMEOUT)
    if value is not None:
        found = _TIMEOUT.fullmatch(value)
        if found is None:
            raise wrong(f"{_GRPC_TIMEOUT}: expected digits and a unit, got {quoted(value)}")
        timeout_s = int(found[1]) * _UNITS[found[2]]
    return Operation(
        request.path, _only_frame(body), partial(_web_answer, kind=kind), failed, timeout_s
    )


def _from_base64(body: bytes) -> bytes:
    """Returns the bytes of base64 in parts, each of which may end in padding of its own."""
    try:
        return b"".join(
            base64.b64decode(part, validate=True) for part in re.findall(rb"[^=]+={0,2}|=+", body)
        )
    except binascii.Error as error:
        raise wrong(f"request: expected base64, got others: {error}") from error


def _only_frame(body: bytes) -> bytes:
    """Returns the message of a body that has one frame."""
    if len(body) < _FRAME_HEAD:
        raise wrong(f"request: expected one frame with a message, got {len(body)} bytes")
    flags, size = body[0], int.from_bytes(body[1:_FRAME_HEAD])
    if flags & _COMPRESSED:
        raise Problem(
            415,
            "UNSUPPORTED_ENCODING",
            "grpc-encoding: expected identity, got a compressed message",
        )
    if flags or len(body) != _FRAME_HEAD + size:
        raise wrong(
            f"request: expected one frame of {size} bytes and nothing else, got flags {flags} and "
            f"{len(body) - _FRAME_HEAD} bytes"
        )
    return body[_FRAME_HEAD:]


def _web_answer(payload: bytes, kind: str) -> HttpAnswer:
    return _web(_frame(0, payload) + _trailers((("grpc-status", "0"),)), kind)


def _web_failure(failure: Failure, kind: str) -> HttpAnswer:
    code = failure.code if failure.code in code_pb2.Code.values() else code_pb2.UNKNOWN
    fields: Fields = (
        ("grpc-status", str(code)),
        ("grpc-message", quote(failure.message, safe=_UNCHANGED)),
    )
    for name, value in failure.trailers:
        if isinstance(value, bytes):
            fields += ((name, base64.b64encode(value).decode().rstrip("=")),)
        else:
            fields += ((name, value),)
    return _web(_trailers(fields), kind)


def _trailers(fields: Fields) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return _frame(_TRAILERS, lines.encode())


def _frame(flags: int, data: bytes) -> bytes:
    return bytes((flags,)) + len(data).to_bytes(_FRAME_HEAD - 1) + data


def _web(body: bytes, kind: str) -> HttpAnswer:
    return HttpAnswer(200, base64.b64encode(body) if kind.startswith(_WEB_TEXT) else body, kind)

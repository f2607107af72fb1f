"""What is wrong over HTTP: each request is refused with a status of the 4xx and a JSON error."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from tests.conformance.http_cases import (
    BINARY,
    ENDPOINTS,
    ERROR,
    HTTP,
    METADATA,
    REQUEST,
    TENSORS,
    Check,
)
from tests.conformance.http_server import (
    BAD,
    HEADER_LENGTH,
    NO_ROUTE,
    NOT_DONE,
    UNKNOWN_NAME,
    HttpServer,
    Reply,
    binary_request,
    json_request,
    refused,
)
from tests.conformance.models import adder, sum_question
from tests.conformance.suite import Case, changed, expect

#: The body, and headers besides the content type.
Sent = tuple[bytes, dict[str, str]]
#: Changes the JSON of a good request; returns another body, or None.
Change = Callable[[dict[str, Any]], bytes | None]


def _top(**values: Any) -> Change:
    """Sets keys of the request."""
    return lambda request: request.update(values)


def _first(**values: Any) -> Change:
    """Sets keys of the first input."""
    return lambda request: request["inputs"][0].update(values)


def _without(key: str) -> Change:
    """Drops a key of the first input."""

    def change(request: dict[str, Any]) -> None:
        del request["inputs"][0][key]

    return change


def _shapes(*shape: Any) -> Change:
    """Gives both inputs a shape."""

    def change(request: dict[str, Any]) -> None:
        for each in request["inputs"]:
            each["shape"] = list(shape)

    return change


def _element(text: str) -> Change:
    """Writes the first element of the first input's data as a text of JSON, or of what is not."""

    def change(request: dict[str, Any]) -> bytes:
        request["inputs"][0]["data"][0] = "MARK"
        return json.dumps(request).encode().replace(b'"MARK"', text.encode())

    return change


def _text(edit: Callable[[bytes], bytes]) -> Change:
    """Changes the body."""
    return lambda request: edit(json.dumps(request).encode())


def _body(data: bytes) -> Change:
    """Another body."""
    return lambda request: data


def _data(edit: Callable[[list[Any]], Any]) -> Change:
    """Changes the first input's data."""

    def change(request: dict[str, Any]) -> None:
        request["inputs"][0]["data"] = edit(request["inputs"][0]["data"])

    return change


def _inputs(edit: Callable[[list[Any]], Any]) -> Change:
    """Changes the list of inputs."""

    def change(request: dict[str, Any]) -> None:
        request["inputs"] = edit(request["inputs"])

    return change


_DEEP = b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
_BOTH = BAD | UNKNOWN_NAME

#: Name, source, what changes a good request, and the statuses that are right.
_JSON: list[tuple[str, str, str, Change, Iterable[int]]] = [
    ("body", "empty", ERROR, _body(b""), NOT_DONE),
    ("body", "not JSON", ERROR, _body(b"hello"), BAD),
    ("body", "half of it", ERROR, _text(lambda data: data[: len(data) // 2]), BAD),
    ("body", "garbage behind it", ERROR, _text(lambda data: data + b"}]"), BAD),
    ("body", "twice", ERROR, _text(lambda data: data * 2), BAD),
    ("body", "single quotes", ERROR, _text(lambda data: data.replace(b'"', b"'")), BAD),
    ("body", "a list", ERROR, _text(lambda data: b"[" + data + b"]"), BAD),
    ("body", "null", ERROR, _body(b"null"), BAD),
    ("body", "a number", ERROR, _body(b"42"), BAD),
    ("body", "a text", ERROR, _body(b'"inputs"'), BAD),
    ("body", "an empty object", ERROR, _body(b"{}"), BAD),
    ("body", "bytes that are not UTF-8", ERROR,
     _text(lambda data: b'{"id": "\xff\xfe", ' + data[1:]), BAD),
    ("body", "UTF-16", ERROR, _text(lambda data: data.decode().encode("utf-16")), BAD),
    ("body", "100,000 nested lists", ERROR, _body(_DEEP), BAD),
    ("body", "100,000 lists that do not end", ERROR, _body(b"[" * 100_000), BAD),
    ("body", "NUL bytes", ERROR, _body(bytes(1000)), BAD),
    ("inputs", "none", REQUEST, lambda request: request.pop("inputs") and None, BAD),
    ("inputs", "null", REQUEST, _top(inputs=None), BAD),
    ("inputs", "empty", REQUEST, _top(inputs=[]), _BOTH),
    ("inputs", "an object", REQUEST, _inputs(lambda all: all[0]), BAD),
    ("inputs", "a text", REQUEST, _top(inputs="INPUT0"), BAD),
    ("inputs", "a list of numbers", REQUEST, _top(inputs=[1, 2]), BAD),
    ("inputs", "a list of null", REQUEST, _top(inputs=[None, None]), BAD),
    ("inputs", "one missing", REQUEST, _inputs(lambda all: all[:1]), _BOTH),
    ("inputs", "one twice", REQUEST, _inputs(lambda all: [all[0], all[0]]), _BOTH),
    ("inputs", "one too many", REQUEST,
     _inputs(lambda all: [*all, {**all[0], "name": "INPUT2"}]), _BOTH),
    ("inputs", "name unknown", REQUEST, _first(name="INPUT2"), _BOTH),
    ("inputs", "name missing", REQUEST, _without("name"), _BOTH),
    ("inputs", "name empty", REQUEST, _first(name=""), _BOTH),
    ("inputs", "name a number", REQUEST, _first(name=0), _BOTH),
    ("inputs", "name null", REQUEST, _first(name=None), _BOTH),
    ("inputs", "name with half a surrogate pair", REQUEST, _first(name="\ud800"), _BOTH),
    ("datatype", "missing", REQUEST, _without("datatype"), BAD),
    ("datatype", "one that does not exist", REQUEST, _first(datatype="INT33"), BAD),
    ("datatype", "another", REQUEST, _first(datatype="FP32"), BAD),
    ("datatype", "BYTES", REQUEST, _first(datatype="BYTES"), BAD),
    ("datatype", "a number", REQUEST, _first(datatype=8), BAD),
    ("datatype", "null", REQUEST, _first(datatype=None), BAD),
    ("shape", "missing", REQUEST, _without("shape"), BAD),
    ("shape", "null", REQUEST, _first(shape=None), BAD),
    ("shape", "empty", REQUEST, _first(shape=[]), BAD),
    ("shape", "a number", REQUEST, _first(shape=16), BAD),
    ("shape", "a text", REQUEST, _first(shape="1,16"), BAD),
    ("shape", "of texts", REQUEST, _first(shape=["1", "sixteen"]), BAD),
    ("shape", "of fractions", REQUEST, _first(shape=[1.5, 16]), BAD),
    ("shape", "nested", REQUEST, _first(shape=[[1], [16]]), BAD),
    ("shape", "one axis too many", REQUEST, _shapes(1, 16, 1), BAD),
    ("shape", "axes exchanged", REQUEST, _shapes(16, 1), BAD),
    ("shape", "a thousand axes", REQUEST, _shapes(*[1] * 998, 1, 16), BAD),
    ("shape", "a fixed size one less", REQUEST, _shapes(1, 15), BAD),
    ("shape", "negative", REQUEST, _shapes(-1, 16), BAD),
    ("shape", "two negative sizes, whose product fits", REQUEST, _shapes(-1, -16), BAD),
    ("shape", "2^62 rows", REQUEST, _shapes(1 << 62, 16), NOT_DONE),
    ("shape", "elements overflow 64 bits to the right number", REQUEST,
     _shapes((1 << 60) + 1, 16), NOT_DONE),
    ("shape", "more than 64 bits", REQUEST, _shapes(10**40, 16), NOT_DONE),
    ("shape", "more rows than data", REQUEST, _shapes(2, 16), BAD),
    ("shape", "inputs of different batch sizes", REQUEST,
     lambda request: request["inputs"][0].update(shape=[2, 16], data=list(range(32))), BAD),
    ("data", "missing", TENSORS, _without("data"), BAD),
    ("data", "null", TENSORS, _first(data=None), BAD),
    ("data", "an object", TENSORS, _first(data={"0": 1}), BAD),
    ("data", "a number", TENSORS, _first(data=1), BAD),
    ("data", "a text", TENSORS, _first(data="0123456789abcdef"), BAD),
    ("data", "empty", TENSORS, _first(data=[]), BAD),
    ("data", "one element less", TENSORS, _data(lambda data: data[:-1]), BAD),
    ("data", "one element more", TENSORS, _data(lambda data: [*data, 0]), BAD),
    ("data", "rows of different lengths", TENSORS, _data(lambda data: [data[:9], data[9:15]]), BAD),
    ("data", "a list among numbers", TENSORS, _data(lambda data: [*data[:-1], [1, 2]]), BAD),
    ("data", "100,000 nested lists", TENSORS,
     _element("[" * 100_000 + "1" + "]" * 100_000), BAD),
    ("data", "null among numbers", TENSORS, _element("null"), BAD),
    ("data", "an object among numbers", TENSORS, _element("{}"), BAD),
    ("data", "a word among numbers", TENSORS, _element('"one"'), BAD),
    ("data", "2^31 of INT32", TENSORS, _element("2147483648"), BAD),
    ("data", "-2^31 - 1 of INT32", TENSORS, _element("-2147483649"), BAD),
    ("data", "2^64 of INT32", TENSORS, _element("18446744073709551616"), BAD),
    ("data", "a number of 5,000 digits", TENSORS, _element("1" * 5000), BAD),
    ("data", "NaN", TENSORS, _element("NaN"), BAD),
    ("data", "Infinity", TENSORS, _element("-Infinity"), BAD),
    ("data", "1e400", TENSORS, _element("1e400"), BAD),
    ("data", "a leading zero", TENSORS, _element("01"), BAD),
    ("outputs", "a name that is unknown", REQUEST, _top(outputs=[{"name": "OUTPUT2"}]), _BOTH),
    ("outputs", "a name that is empty", REQUEST, _top(outputs=[{"name": ""}]), _BOTH),
    ("outputs", "without a name", REQUEST, _top(outputs=[{}]), _BOTH),
    ("outputs", "a list of texts", REQUEST, _top(outputs=["OUTPUT0"]), _BOTH),
    ("outputs", "an object", REQUEST, _top(outputs={"name": "OUTPUT0"}), _BOTH),
    ("outputs", "a number", REQUEST, _top(outputs=1), _BOTH),
    ("parameters", "a list", REQUEST, _top(parameters=[1]), BAD),
    ("parameters", "a text", REQUEST, _top(parameters="x"), BAD),
]  # fmt: skip

#: What a server may coerce, ignore or refuse: what counts is that nothing breaks.
_SILENT: list[tuple[str, str, str, Change]] = [
    ("data", "a fraction of INT32", TENSORS, _element("1.5")),
    ("data", "a whole number with a fraction of 0", TENSORS, _element("1.0")),
    ("data", "true among numbers", TENSORS, _element("true")),
    ("data", "a number as text", TENSORS, _element('"1"')),
    ("body", "a byte order mark", ERROR, _text(lambda data: b"\xef\xbb\xbf" + data)),
    ("body", "a key twice", ERROR, _text(lambda data: b'{"inputs": [], ' + data[1:])),
    ("ids", "a number", REQUEST, _top(id=42)),
    ("ids", "null", REQUEST, _top(id=None)),
    ("ids", "half a surrogate pair", REQUEST, _top(id="\ud800")),
    ("ids", "1 MiB", REQUEST, _top(id="i" * (1 << 20))),
    ("outputs", "the same twice", REQUEST, _top(outputs=[{"name": "OUTPUT0"}] * 2)),
    ("outputs", "null", REQUEST, _top(outputs=None)),
    ("parameters", "null", REQUEST, _top(parameters=None)),
    ("parameters", "a value that is an object", REQUEST, _top(parameters={"x": {"y": [1]}})),
    ("parameters", "a classification of -1", REQUEST,
     _top(outputs=[{"name": "OUTPUT0", "parameters": {"classification": -1}}])),
    ("parameters", "a classification as text", REQUEST,
     _top(outputs=[{"name": "OUTPUT0", "parameters": {"classification": "many"}}])),
    ("parameters", "a priority below 0", REQUEST, _top(parameters={"priority": -1})),
    ("parameters", "a timeout as text", REQUEST, _top(parameters={"timeout": "soon"})),
    ("parameters", "binary_data as text", REQUEST,
     _top(outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": "perhaps"}}])),
]  # fmt: skip


def _binary(edit: Callable[[dict[str, Any], bytes], tuple[bytes, str | None]]) -> Any:
    """A request with tensors behind the JSON, changed.

    Args:
        edit: returns the bytes behind the JSON, and the header's value or None for the right one.
    """

    def sent(server: HttpServer) -> Sent:
        request, tail = binary_request(sum_question(adder(server.models)))
        tail, header = edit(request, tail)
        body = json.dumps(request).encode()
        value = header.format(json=len(body)) if header is not None else str(len(body))
        return body + tail, {HEADER_LENGTH: value} if value else {}

    return sent


def _sizes(*sizes: Any) -> Any:
    """Changes the values of binary_data_size."""

    def edit(request: dict[str, Any], tail: bytes) -> tuple[bytes, str | None]:
        for each, size in zip(request["inputs"], sizes, strict=True):
            each["parameters"]["binary_data_size"] = size
        return tail, None

    return _binary(edit)


def _header(value: str) -> Any:
    """Another value of the header; none if empty."""
    return _binary(lambda request, tail: (tail, value))


def _data_too(request: dict[str, Any], tail: bytes) -> tuple[bytes, str | None]:
    request["inputs"][0]["data"] = list(range(16))
    return tail, None


def _no_size(request: dict[str, Any], tail: bytes) -> tuple[bytes, str | None]:
    del request["inputs"][0]["parameters"]
    return tail, None


def _bytes(request: dict[str, Any], tail: bytes) -> tuple[bytes, str | None]:
    request["inputs"][0]["datatype"] = "BYTES"
    return tail, None


_BINARY: list[tuple[str, Callable[[HttpServer], Sent]]] = [
    ("header: a word", _header("ten")),
    ("header: negative", _header("-1")),
    ("header: a fraction", _header("1.5")),
    ("header: 0", _header("0")),
    ("header: beyond the end", _header("1000000")),
    ("header: 2^64", _header("18446744073709551616")),
    ("header: 5,000 digits", _header("1" * 5000)),
    ("header: one byte of JSON less", _binary(lambda request, tail: (tail, "0{json}0"))),
    ("header: missing", _header("")),
    ("size: negative", _sizes(-64, 64)),
    ("size: a text", _sizes("all", 64)),
    ("size: a fraction", _sizes(63.5, 64)),
    ("size: null", _sizes(None, 64)),
    ("size: a list", _sizes([64], 64)),
    ("size: 2^70", _sizes(1 << 70, 64)),
    ("size: one byte more", _sizes(65, 64)),
    ("size: one byte less", _sizes(63, 64)),
    ("size: all in the first", _sizes(128, 0)),
    ("size: missing", _binary(_no_size)),
    ("bytes: one less", _binary(lambda request, tail: (tail[:-1], None))),
    ("bytes: one more", _binary(lambda request, tail: (tail + b"\0", None))),
    ("bytes: none", _binary(lambda request, tail: (b"", None))),
    ("bytes: beside data", _binary(_data_too)),
    ("bytes: of BYTES", _binary(_bytes)),
]


def cases() -> Iterator[Case[HttpServer]]:
    """All of them."""
    for group, name, source, change, statuses in _JSON:
        yield Case(group, name, source, partial(_refuses, change, statuses), malformed=True)
    for group, name, source, change in _SILENT:
        yield Case(group, name, source, partial(_answers, change), malformed=True)
    for name, sent in _BINARY:
        yield Case("binary", name, BINARY, partial(_refuses_binary, sent), malformed=True)
    for name, path in [
        ("unknown model", "no-such-model"),
        ("model in another folder", "..%2Fsimple"),
        ("model with a NUL", "simple%00"),
        ("model with bytes that are not UTF-8", "simple%FF%FE"),
        ("model of many scripts", "%E6%A8%A1%E5%9E%8B"),
        ("model with a percent sign alone", "simple%"),
        ("model of 5,000 letters", "m" * 5000),
        ("no model", ""),
        ("unknown version", "simple/versions/4242"),
        ("version 0", "simple/versions/0"),
        ("negative version", "simple/versions/-1"),
        ("version of 400 digits", "simple/versions/" + "9" * 400),
        ("version a word", "simple/versions/no-such-label"),
        ("no version", "simple/versions/"),
    ]:
        yield Case("paths", name, ENDPOINTS, partial(unknown_path, path), malformed=True)
    for name, verb, path in [
        ("POST of live", "POST", "/v2/health/live"),
        ("DELETE of metadata", "DELETE", "/v2/models/simple"),
        ("GET of infer", "GET", "/v2/models/simple/infer"),
        ("PUT of infer", "PUT", "/v2/models/simple/infer"),
        ("a verb that does not exist", "INFER", "/v2/models/simple/infer"),
        ("unknown path", "GET", "/v2/no/such/path"),
        ("a folder above", "GET", "/v2/../../etc/passwd"),
        ("a path of 10,000 letters", "GET", "/v2/" + "p" * 10_000),
    ]:
        yield Case(
            "verbs and paths", name, ENDPOINTS, partial(no_route, verb, path), malformed=True
        )
    table: list[tuple[str, str, str, Check]] = [
        ("paths", "metadata of an unknown model", METADATA,
         partial(unknown_get, "/v2/models/no-such-model")),
        ("paths", "metadata of an unknown version", METADATA,
         partial(unknown_get, "/v2/models/simple/versions/4242")),
        ("body", "300 random changes", ERROR, random_changes),
        ("transfer", "another content type", HTTP, another_content_type),
        ("transfer", "no content type", HTTP, no_content_type),
        ("transfer", "gzip that is none", HTTP, partial(coded, "gzip", b"not gzip")),
        ("transfer", "gzip, truncated", HTTP,
         partial(coded, "gzip", gzip.compress(b'{"inputs": []}' * 100)[:-20])),
        ("transfer", "gzip, 64 MiB of zeros", HTTP,
         partial(coded, "gzip", gzip.compress(bytes(64 << 20)))),
        ("transfer", "a coding that does not exist", HTTP, partial(coded, "middle-out", b"{}")),
        ("transfer", "a body that ends early", HTTP, ends_early),
        ("transfer", "a length that is negative", HTTP, partial(length, b"-5")),
        ("transfer", "a length that is a word", HTTP, partial(length, b"ten")),
        ("transfer", "two lengths", HTTP, partial(length, b"5\r\nContent-Length: 6")),
        ("transfer", "a length and chunks", HTTP,
         partial(length, b"5\r\nTransfer-Encoding: chunked")),
        ("transfer", "a chunk's length that is a word", HTTP, bad_chunk),
        ("transfer", "bytes that are not HTTP", HTTP, not_http),
        ("transfer", "a header of 1 MiB", HTTP, long_header),
    ]  # fmt: skip
    for group, name, source, check in table:
        yield Case(group, name, source, check, malformed=True)


def _changed(server: HttpServer, change: Change) -> Reply:
    request = json_request(sum_question(adder(server.models)))
    sent = change(request)
    return server.post(adder(server.models).name, request if sent is None else sent)


def _refuses(change: Change, statuses: Iterable[int], server: HttpServer) -> None:
    refused(_changed(server, change), statuses)


def _answers(change: Change, server: HttpServer) -> None:
    """Either an answer that is JSON, or a refusal."""
    reply = _changed(server, change)
    if reply.status == 200:
        expect(isinstance(reply.json(), dict), "body", "an object", reply.body)
    else:
        refused(reply, NOT_DONE | UNKNOWN_NAME)


def random_changes(server: HttpServer) -> None:
    """Whatever comes, it is answered or refused; the changes are the same in every run."""
    question = sum_question(adder(server.models), 2)
    good = json.dumps(json_request(question)).encode()
    for seed in range(300):
        reply = server.post(question.model, changed(good, seed))
        if reply.status != 200:
            refused(reply, NOT_DONE | UNKNOWN_NAME)
        else:
            expect(isinstance(reply.json(), dict), "body", "an object", reply.body)


def _refuses_binary(sent: Callable[[HttpServer], Sent], server: HttpServer) -> None:
    server.check(sum_question(adder(server.models)), binary=True)
    body, headers = sent(server)
    refused(server.post(adder(server.models).name, body, headers), NOT_DONE)


def _named(server: HttpServer, path: str) -> str:
    return path.replace("simple", adder(server.models).name, 1)


def unknown_path(path: str, server: HttpServer) -> None:
    """A good request to a model or a version that does not exist."""
    body = json_request(sum_question(adder(server.models)))
    reply = server.post(_named(server, path), body)
    routed = path.count("/") in (0, 2) and path[-1:] not in ("", "/") and "%" not in path
    refused(reply, UNKNOWN_NAME | NO_ROUTE, with_error=routed and reply.status not in (405, 414))


def no_route(verb: str, path: str, server: HttpServer) -> None:
    """There is nothing, or not with this verb."""
    body = json.dumps(json_request(sum_question(adder(server.models)))).encode()
    sent = None if verb in ("GET", "DELETE") else body
    refused(server.send(verb, _named(server, path), sent), NO_ROUTE, with_error=False)


def unknown_get(path: str, server: HttpServer) -> None:
    """An error, as an object with its message."""
    refused(server.send("GET", _named(server, path)), UNKNOWN_NAME)


def another_content_type(server: HttpServer) -> None:
    """An answer, or a refusal: the specification names none that is required."""
    _content_type(server, {"Content-Type": "text/html"})


def no_content_type(server: HttpServer) -> None:
    """An answer, or a refusal: the specification names none that is required."""
    _content_type(server, {})


def _content_type(server: HttpServer, headers: dict[str, str]) -> None:
    question = sum_question(adder(server.models))
    body = json.dumps(json_request(question)).encode()
    reply = server.send("POST", f"/v2/models/{question.model}/infer", body, headers)
    if reply.status != 200:
        refused(reply, NOT_DONE)


def coded(coding: str, body: bytes, server: HttpServer) -> None:
    """A body that cannot be decoded, or not within reason."""
    name = adder(server.models).name
    refused(server.post(name, body, {"Content-Encoding": coding}), NOT_DONE, with_error=False)


def _head(server: HttpServer, headers: bytes) -> bytes:
    name = adder(server.models).name.encode()
    return (
        b"POST /v2/models/" + name + b"/infer HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nConnection: close\r\n" + headers + b"\r\n"
    )


def _status(answer: bytes) -> None:
    """Raises Violation unless the connection has ended, or there is a status of the 4xx.

    What does not begin as an answer of HTTP/1 does is one of HTTP/0.9, which has no status.
    """
    if answer.startswith(b"HTTP/1"):
        first = answer.split(b"\r\n")[0].split(b" ")
        right = len(first) > 1 and (first[1].startswith(b"4") or first[1] == b"501")
        expect(right, "status", "one of the 4xx", answer[:80])


def ends_early(server: HttpServer) -> None:
    """The connection is half closed before the body is complete."""
    _status(server.raw(_head(server, b"Content-Length: 500\r\n") + b'{"inputs": ['))


def length(value: bytes, server: HttpServer) -> None:
    """A length that is not right."""
    _status(server.raw(_head(server, b"Content-Length: " + value + b"\r\n") + b"hello"))


def bad_chunk(server: HttpServer) -> None:
    """A body in chunks whose lengths are words."""
    _status(server.raw(_head(server, b"Transfer-Encoding: chunked\r\n") + b"ten\r\nhello\r\n"))


def not_http(server: HttpServer) -> None:
    """The connection ends, or is answered; others are not harmed."""
    _status(server.raw(b"\x16\x03\x01\x02\x00\x01\x00" + b"\xff" * 512 + b"\r\n\r\n"))


def long_header(server: HttpServer) -> None:
    """A refusal, or none: what counts is that it ends."""
    answer = server.raw(_head(server, b"X-Long: " + b"x" * (1 << 20) + b"\r\n"))
    if not answer.startswith(b"HTTP/1.1 200"):
        _status(answer)

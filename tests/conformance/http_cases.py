"""What is right over HTTP."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.conformance.grpc_cases import CALLERS
from tests.conformance.http_server import (
    HEADER_LENGTH,
    NOT_DONE,
    UNKNOWN_NAME,
    HttpServer,
    Reply,
    answer_of,
    binary_request,
    json_request,
    model_of,
    refused,
)
from tests.conformance.models import (
    adder,
    check_metadata,
    extreme_question,
    identity_question,
    repeater,
    sum_question,
)
from tests.conformance.suite import Case, NotApplicable, Violation, expect
from tests.conformance.tensors import DATATYPES

_SPEC = "inference_rest.md"
ENDPOINTS = f"{_SPEC}#httprest"
METADATA = f"{_SPEC}#model-metadata"
REQUEST = f"{_SPEC}#inference-request-json-object"
RESPONSE = f"{_SPEC}#inference-response-json-object"
ERROR = f"{_SPEC}#inference-response-json-error-object"
TENSORS = f"{_SPEC}#tensor-data"
BINARY = "Triton: binary tensor data extension"
HTTP = "RFC 9110"

_CALLS = 12

Check = Callable[[HttpServer], None]


def cases() -> Iterator[Case[HttpServer]]:
    """All of them."""
    table: list[tuple[str, str, str, Check]] = [
        ("health", "server live", ENDPOINTS, partial(healthy, "/v2/health/live")),
        ("health", "server ready", ENDPOINTS, partial(healthy, "/v2/health/ready")),
        ("health", "model ready", ENDPOINTS, model_ready),
        ("health", "version ready", ENDPOINTS, version_ready),
        ("health", "unknown model is not ready", ENDPOINTS,
         partial(not_ready, "/v2/models/no-such-model/ready")),
        ("health", "unknown version is not ready", ENDPOINTS, unknown_version_is_not_ready),
        ("metadata", "server", f"{_SPEC}#server-metadata", server_metadata),
        ("metadata", "each model", METADATA, models_metadata),
        ("metadata", "each version", METADATA, versions_metadata),
        ("infer", "flat data", TENSORS, flat_data),
        ("infer", "nested data", TENSORS, nested_data),
        ("infer", "several rows", REQUEST, several_rows),
        ("infer", "extreme values", TENSORS, extreme_values),
        ("infer", "inputs in another order", REQUEST, inputs_reversed),
        ("infer", "one output of two", REQUEST, one_output),
        ("infer", "outputs in another order", REQUEST, outputs_reversed),
        ("infer", "an empty list of outputs", REQUEST, empty_outputs),
        ("infer", "version in the path", ENDPOINTS, version_in_path),
        ("infer", "answer names model and version", RESPONSE, names_model_and_version),
        ("infer", "answer is application/json", RESPONSE, content_type),
        ("infer", "keys that the server does not know", REQUEST, unknown_keys),
        ("infer", "parameters that the server does not know", f"{_SPEC}#parameters",
         unknown_parameters),
        ("infer", "white space in JSON", REQUEST, white_space),
        ("infer", "escaped letters in JSON", REQUEST, escaped),
        ("transfer", "in chunks", HTTP, chunks),
        ("transfer", "gzip", HTTP, compressed),
        ("transfer", "Expect: 100-continue", HTTP, expects_continue),
        ("transfer", "twenty requests, one connection", HTTP, one_connection),
        ("binary", "in and out", BINARY, partial(binary, 1)),
        ("binary", "in and out, several rows", BINARY, partial(binary, 5)),
        ("binary", "in, JSON out", BINARY, binary_in),
        ("binary", "one input binary, one JSON", BINARY, mixed_in),
        ("binary", "one output binary, one JSON", BINARY, mixed_out),
        ("ids", "repeated", REQUEST, partial(id_is_repeated, "the id of a request")),
        ("ids", "of letters of many scripts", REQUEST,
         partial(id_is_repeated, "\u0442\u0435\u0441\u0442 \u4e2d\u6587 \U0001f600 \u05d0\u05d1")),
        ("ids", "with control characters", REQUEST, partial(id_is_repeated, "a\x00b\nc\x7f\"")),
        ("ids", "none", REQUEST, no_id),
        ("concurrency", "16 threads, 16 connections", REQUEST, together),
        ("concurrency", "good ones beside bad ones", REQUEST, beside_bad_ones),
    ]  # fmt: skip
    for group, name, source, check in table:
        yield Case(group, name, source, check)
    for datatype in DATATYPES:
        if datatype != "FP16":  # "problematic to communicate explicitly", says the specification.
            yield Case(
                "datatypes", f"{datatype}, JSON", TENSORS, partial(identity, datatype, False)
            )
        yield Case("datatypes", f"{datatype}, binary", BINARY, partial(identity, datatype, True))


def healthy(path: str, server: HttpServer) -> None:
    """200; a body is optional in practice."""
    reply = server.send("GET", path)
    expect(reply.status == 200, "status", 200, reply.status)


def model_ready(server: HttpServer) -> None:
    """Each model is."""
    if not server.models:
        raise NotApplicable("no model")
    for name in server.models:
        healthy(f"/v2/models/{name}/ready", server)


def version_ready(server: HttpServer) -> None:
    """Each version of metadata is."""
    for path in _versions(server):
        healthy(f"{path}/ready", server)


def _versions(server: HttpServer) -> list[str]:
    paths = [
        f"/v2/models/{name}/versions/{each}"
        for name, model in server.models.items()
        for each in model.versions
    ]
    if not paths:
        raise NotApplicable("no versions")
    return paths


def not_ready(path: str, server: HttpServer) -> None:
    """An error, or false."""
    reply = server.send("GET", path)
    if reply.status == 200:
        ready = reply.json().get("ready")
        expect(ready is False, "ready", False, ready)
    else:
        refused(reply, UNKNOWN_NAME | {503}, with_error=False)


def unknown_version_is_not_ready(server: HttpServer) -> None:
    """An error, or false."""
    not_ready(f"/v2/models/{adder(server.models).name}/versions/4242/ready", server)


def server_metadata(server: HttpServer) -> None:
    """A name, a version and a list of extensions."""
    body = server.get("/v2")
    for key, kind in (("name", str), ("version", str), ("extensions", list)):
        expect(isinstance(body.get(key), kind), key, kind.__name__, body.get(key))
    expect(bool(body["name"]), "name", "one", "none")


def models_metadata(server: HttpServer) -> None:
    """Names, datatypes and shapes are possible ones."""
    if not server.models:
        raise NotApplicable("no model")
    for name in server.models:
        check_metadata(model_of(server.get(f"/v2/models/{name}")), name)


def versions_metadata(server: HttpServer) -> None:
    """Each version that metadata list can be asked for."""
    for path in _versions(server):
        name = path.split("/")[3]
        check_metadata(model_of(server.get(path)), name)


def flat_data(server: HttpServer) -> None:
    """A sum and a difference."""
    server.check(sum_question(adder(server.models)))


def nested_data(server: HttpServer) -> None:
    """Lists nested as the axes are."""
    question = sum_question(adder(server.models), 2)
    nested = json_request(question, nested=True)
    server.check(question, lambda request: request.update(nested))


def several_rows(server: HttpServer) -> None:
    """Three rows."""
    server.check(sum_question(adder(server.models), 3))


def extreme_values(server: HttpServer) -> None:
    """The largest and the smallest numbers."""
    server.check(extreme_question(adder(server.models)))


def inputs_reversed(server: HttpServer) -> None:
    """Inputs are known by their names."""
    server.check(sum_question(adder(server.models)), lambda request: request["inputs"].reverse())


def _wanting(*names: str) -> Callable[[dict[str, Any]], None]:
    return lambda request: request.update(outputs=[{"name": name} for name in names])


def one_output(server: HttpServer) -> None:
    """Only the output that is asked for."""
    server.check(sum_question(adder(server.models)), _wanting("OUTPUT1"))


def outputs_reversed(server: HttpServer) -> None:
    """Whatever the order of the answer, names and tensors belong together."""
    server.check(sum_question(adder(server.models)), _wanting("OUTPUT1", "OUTPUT0"))


def empty_outputs(server: HttpServer) -> None:
    """As if there were none: all outputs."""
    server.check(sum_question(adder(server.models)), _wanting())


def version_in_path(server: HttpServer) -> None:
    """Each version of metadata answers, and says that it did."""
    model = adder(server.models)
    if not model.versions:
        raise NotApplicable("no versions")
    for version in model.versions:
        response = server.check(sum_question(model), path=f"/versions/{version}")
        got = response.get("model_version")
        expect(got == version, "model_version", version, got)


def names_model_and_version(server: HttpServer) -> None:
    """Without a version in the path, the answer names one that metadata list."""
    model = adder(server.models)
    response = server.check(sum_question(model))
    if model.versions:
        got = response.get("model_version")
        expect(got in model.versions, "model_version", model.versions, got)


def _ask(server: HttpServer, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    question = sum_question(adder(server.models))
    return server.post(question.model, body or json_request(question), headers)


def content_type(server: HttpServer) -> None:
    """Of an answer, and of an error."""
    for reply in (_ask(server), _ask(server, {"inputs": []})):
        kind = reply.headers.get("content-type", "")
        expect(kind.startswith("application/json"), f"content-type of {reply.status}",
               "application/json", kind)  # fmt: skip


def unknown_keys(server: HttpServer) -> None:
    """An answer that is right, or a refusal: the specification does not say."""
    request = json_request(sum_question(adder(server.models)))
    request["no_such_key"] = {"a": [1, None]}
    _right_or_refused(server, _ask(server, request))


def unknown_parameters(server: HttpServer) -> None:
    """An answer that is right, or a refusal: a server may define parameters."""
    request = json_request(sum_question(adder(server.models)))
    request["parameters"] = {"no_such_parameter": "value"}
    request["inputs"][0]["parameters"] = {"no_such_parameter": 1}
    _right_or_refused(server, _ask(server, request))


def _right_or_refused(server: HttpServer, reply: Reply) -> None:
    if reply.status != 200:
        refused(reply, NOT_DONE)
        return
    _right(server, reply)


def _right(server: HttpServer, reply: Reply) -> None:
    _, got = answer_of(reply)
    for name, right in sum_question(adder(server.models)).answer.items():
        wrong = name not in got or got[name].tolist() != right.tolist()
        expect(not wrong, name, right.tolist(), got.get(name))


def white_space(server: HttpServer) -> None:
    """Line breaks and tabs between everything."""
    text = json.dumps(json_request(sum_question(adder(server.models))), indent="\t\r\n ")
    _right(server, _ask(server, text.encode()))


def escaped(server: HttpServer) -> None:
    r"""Names written as \uXXXX."""
    body = json.dumps(json_request(sum_question(adder(server.models)))).encode()
    _right(server, _ask(server, body.replace(b'"INPUT0"', b'"\\u0049NPUT0"')))


def _body(server: HttpServer) -> tuple[str, bytes]:
    question = sum_question(adder(server.models))
    return f"/v2/models/{question.model}/infer", json.dumps(json_request(question)).encode()


def chunks(server: HttpServer) -> None:
    """A body in chunks of 100 bytes, without a length."""
    path, body = _body(server)
    parts = [body[start : start + 100] for start in range(0, len(body), 100)]
    reply = server.send("POST", path, parts, {"Content-Type": "application/json",
                                              "Transfer-Encoding": "chunked"})  # fmt: skip
    _right(server, reply)


def compressed(server: HttpServer) -> None:
    """Read, or refused as a content coding that the server does not know."""
    path, body = _body(server)
    reply = server.send(
        "POST",
        path,
        gzip.compress(body),
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    if reply.status != 200:
        refused(reply, {400, 415, 422}, with_error=False)
        raise NotApplicable(f"gzip is refused: {reply.status}")
    _right(server, reply)


def expects_continue(server: HttpServer) -> None:
    """As curl sends what is large."""
    _right(server, _ask(server, headers={"Expect": "100-continue"}))


def one_connection(server: HttpServer) -> None:
    """It is kept."""
    for first in range(20):
        server.check(sum_question(adder(server.models), 1, 100 * first))


def binary(rows: int, server: HttpServer) -> None:
    """Tensors as bytes behind the JSON, both ways."""
    server.check(sum_question(adder(server.models), rows), binary=True)


def _binary(server: HttpServer, request: dict[str, Any], tail: bytes) -> Reply:
    body = json.dumps(request).encode()
    reply = server.post(adder(server.models).name, body + tail, {HEADER_LENGTH: str(len(body))})
    if reply.status in NOT_DONE:
        raise NotApplicable(f"binary tensors are refused: {reply.status}")
    return reply


def binary_in(server: HttpServer) -> None:
    """Without a wish for it, the answer is JSON."""
    request, tail = binary_request(sum_question(adder(server.models)))
    del request["parameters"]
    reply = _binary(server, request, tail)
    expect(HEADER_LENGTH.lower() not in reply.headers, HEADER_LENGTH, "none", "one")
    _right(server, reply)


def mixed_in(server: HttpServer) -> None:
    """The second input as bytes, the first as JSON."""
    question = sum_question(adder(server.models))
    request, tail = binary_request(question)
    request["inputs"][0] = json_request(question)["inputs"][0]
    _right(server, _binary(server, request, tail[64:]))


def mixed_out(server: HttpServer) -> None:
    """binary_data of each output counts for it alone."""
    question = sum_question(adder(server.models))
    request, tail = binary_request(question)
    request["outputs"] = [
        {"name": "OUTPUT0", "parameters": {"binary_data": True}},
        {"name": "OUTPUT1", "parameters": {"binary_data": False}},
    ]
    reply = _binary(server, request, tail)
    response, _ = answer_of(reply)
    forms = {each["name"]: "data" in each for each in response["outputs"]}
    expect(
        forms == {"OUTPUT0": False, "OUTPUT1": True}, "outputs with data", "OUTPUT1 alone", forms
    )
    _right(server, reply)


def id_is_repeated(text: str, server: HttpServer) -> None:
    """The id of the answer is that of the request."""
    server.check(sum_question(adder(server.models)), _with_id(text))


def _with_id(text: str) -> Callable[[dict[str, Any]], None]:
    return lambda request: request.update(id=text)


def no_id(server: HttpServer) -> None:
    """A request without one is answered."""
    server.check(sum_question(adder(server.models)))


def together(server: HttpServer) -> None:
    """Each caller gets its own answer."""
    _together(server, lambda own: None)


def beside_bad_ones(server: HttpServer) -> None:
    """Requests that are refused harm none that are computed beside them."""
    bad = json_request(sum_question(adder(server.models)))
    bad["inputs"][0]["data"].pop()

    def beside(own: HttpServer) -> None:
        status = own.post(adder(server.models).name, bad).status
        expect(status != 200, "status of the bad one", "an error", status)

    _together(server, beside)


def _together(server: HttpServer, beside: Callable[[HttpServer], None]) -> None:
    model = adder(server.models)
    wrong: list[Violation] = []
    gate = threading.Barrier(CALLERS)

    def ask(index: int) -> None:
        own = server.new()
        try:
            gate.wait()
            for turn in range(_CALLS):
                first = 100_000 * index + 1000 * turn
                name = f"caller {index}, call {turn}"
                own.check(sum_question(model, 1 + (index + turn) % 3, first), _with_id(name))
                beside(own)
        except Violation as reason:
            wrong.append(reason)
        finally:
            own.close()

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise Violation(f"{len(wrong)} of {CALLERS} callers: {wrong[0]}")


def identity(datatype: str, as_bytes: bool, server: HttpServer) -> None:
    """A tensor with the extreme values of a datatype comes back bit for bit."""
    server.check(identity_question(repeater(server.models, datatype)), binary=as_bytes)

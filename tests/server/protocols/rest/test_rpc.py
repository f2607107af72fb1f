"""Connect and gRPC-Web, byte by byte; examples/connect has a client of theirs."""

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.base import Call
from tests.server.conftest import CallWatch, Serve, answers, request_for
from tests.server.http_client import HttpClient, Reply
from tests.server.transports.test_conformance import CLASSIFY

SERVICE = "/convserve.v1.Classifier"
PROTO = {"Content-Type": "application/proto"}
JSON = {"Content-Type": "application/json", "Connect-Protocol-Version": "1"}
WEB = {"Content-Type": "application/grpc-web+proto"}
TEXT = {"Content-Type": "application/grpc-web-text"}
GOOD = request_for(3).SerializeToString()
UNKNOWN = request_for(3, model="none").SerializeToString()


@pytest.fixture
def client(serve: Serve) -> Iterator[HttpClient]:
    with HttpClient(serve(http=True).http_port) as client:
        yield client


def frame(data: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(data).to_bytes(4, "big") + data


def frames(reply: Reply) -> tuple[bytes | None, dict[str, str]]:
    """The message of a reply of gRPC-Web, if there is one, and its trailers."""
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/grpc-web")
    body = reply.body
    if "text" in reply.headers["content-type"]:
        body = base64.b64decode(body, validate=True)
    parts: dict[int, bytes] = {}
    while body:
        size = int.from_bytes(body[1:5], "big")
        parts[body[0]] = body[5 : 5 + size]
        body = body[5 + size :]
    lines = parts.pop(0x80).decode().split("\r\n")
    assert lines.pop() == ""
    assert parts.keys() <= {0}
    return parts.get(0), dict(line.split(": ", 1) for line in lines)


def test_connect_in_both_forms(client: HttpClient) -> None:
    reply = client.ask("POST", CLASSIFY, GOOD, PROTO)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/proto")
    response = pb.ClassifyResponse.FromString(reply.body)
    assert answers(response) == [3]
    body = json_format.MessageToJson(request_for(3)).encode()
    for headers in (JSON, {"Content-Type": "application/json; charset=utf-8"}):
        reply = client.ask("POST", CLASSIFY, body, headers)
        parsed = json_format.ParseDict(reply.json, pb.ClassifyResponse())
        assert parsed.results == response.results
    packed = {**PROTO, "Content-Encoding": "gzip"}
    assert client.ask("POST", CLASSIFY, gzip.compress(GOOD), packed).status == 200
    assert client.ask("POST", f"{SERVICE}/ListModels", b"", PROTO).status == 200
    health = client.ask("POST", "/grpc.health.v1.Health/Check", b"{}", JSON)
    assert health.json == {"status": "SERVING"}


def test_grpc_web_in_both_forms(client: HttpClient) -> None:
    for headers, body in (
        (WEB, frame(GOOD)),
        (TEXT, base64.b64encode(frame(GOOD))),
        # Padding within: each part was encoded by itself.
        (TEXT, base64.b64encode(frame(GOOD)[:10]) + base64.b64encode(frame(GOOD)[10:])),
    ):
        message, trailers = frames(client.ask("POST", CLASSIFY, body, headers))
        assert message is not None
        assert answers(pb.ClassifyResponse.FromString(message)) == [3]
        assert trailers == {"grpc-status": "0"}


def test_errors_carry_code_message_and_details(client: HttpClient) -> None:
    expected = "no model 'none'; loaded: mnist"
    reply = client.ask("POST", CLASSIFY, UNKNOWN, PROTO)
    assert (reply.status, reply.json["code"], reply.json["message"]) == (404, "not_found", expected)
    (detail,) = reply.json["details"]
    assert detail["type"] == "google.rpc.ResourceInfo"
    data = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
    assert error_details_pb2.ResourceInfo.FromString(data).resource_name == "none"
    message, trailers = frames(client.ask("POST", CLASSIFY, frame(UNKNOWN), WEB))
    assert message is None
    assert (trailers["grpc-status"], unquote(trailers["grpc-message"])) == ("5", expected)
    value = trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))
    assert (status.code, status.message) == (5, expected)


#: What is sent; the code of Connect, or of gRPC-Web, and what its message holds.
WRONG: list[tuple[str, dict[str, str], bytes, str | int, str]] = [
    (CLASSIFY, PROTO, b"\xff", "invalid_argument", "request: expected a convserve.v1.Classify"),
    (CLASSIFY, JSON, b"{", "invalid_argument", "request: expected a convserve.v1.Classify"),
    (CLASSIFY, JSON, b"\xff", "invalid_argument", "as JSON, got others"),
    (CLASSIFY, JSON, b'{"none": 1}', "invalid_argument", 'no field named "none"'),
    (CLASSIFY, JSON, b"[" * 50_000, "invalid_argument", "as JSON, got"),
    (CLASSIFY, {**PROTO, "Connect-Timeout-Ms": "x"}, GOOD, "invalid_argument",
     "connect-timeout-ms: expected milliseconds"),
    (CLASSIFY, {**PROTO, "Connect-Protocol-Version": "2"}, GOOD, "invalid_argument",
     "connect-protocol-version: expected 1, got '2'"),
    (CLASSIFY, {**PROTO, "Content-Encoding": "br"}, GOOD, "unimplemented", "content-encoding"),
    (CLASSIFY, {**PROTO, "Content-Encoding": "gzip"}, gzip.compress(bytes(2**20)),
     "resource_exhausted", "body: expected at most 65536 bytes"),
    (f"{SERVICE}/StreamClassify", PROTO, b"", "unimplemented", "expected a unary one"),
    (f"{SERVICE}/Nothing", PROTO, b"", "unimplemented", "no method"),
    (f"{SERVICE}/Nothing", JSON, b"{}", "unimplemented", "no method"),
    ("/no.Service/Nothing", JSON, b"{}", "unimplemented", "no method"),
    (CLASSIFY, WEB, b"", 3, "expected one frame with a message, got 0 bytes"),
    (CLASSIFY, WEB, frame(GOOD)[:-1], 3, "expected one frame of"),
    (CLASSIFY, WEB, frame(GOOD) * 2, 3, "expected one frame of"),
    (CLASSIFY, WEB, frame(GOOD, flags=0x80), 3, "got flags 128"),
    (CLASSIFY, WEB, frame(GOOD, flags=1), 12, "grpc-encoding: expected identity"),
    (CLASSIFY, TEXT, b"!", 3, "expected base64"),
    (CLASSIFY, {**WEB, "grpc-timeout": "soon"}, frame(GOOD), 3, "grpc-timeout: expected digits"),
    (f"{SERVICE}/Nothing", WEB, frame(b""), 12, "no method"),
]  # fmt: skip


def test_what_is_wrong_is_an_error_of_the_callers_protocol(serve: Serve) -> None:
    with HttpClient(serve(http=True, max_message_bytes=2**16).http_port) as client:
        for path, headers, body, code, message in WRONG:
            reply = client.ask("POST", path, body, headers)
            if isinstance(code, str):
                found = (reply.json["code"], reply.json["message"])
            else:
                message_, trailers = frames(reply)
                assert message_ is None
                found = (int(trailers["grpc-status"]), unquote(trailers["grpc-message"]))
            assert found[0] == code, (path, headers, found)
            assert message in found[1], (path, headers, found)


@pytest.mark.parametrize(
    "kind", ["application/grpc", "application/connect+proto", "text/plain", "", "application/xml"]
)
def test_other_types_are_refused_with_those_that_there_are(client: HttpClient, kind: str) -> None:
    reply = client.ask("POST", CLASSIFY, GOOD, {"Content-Type": kind} if kind else {})
    assert (reply.status, reply.json["field"]) == (415, "content-type")
    assert "application/grpc-web+proto" in reply.headers["accept-post"]
    assert client.ask("GET", CLASSIFY).headers["allow"] == "OPTIONS, POST"


def test_time_that_the_client_waits_is_the_calls(serve: Serve) -> None:
    deadlines: list[float | None] = []
    watch = CallWatch(CLASSIFY, lambda call: deadlines.append(left(call)))
    with HttpClient(serve(http=True, interceptors=[watch]).http_port) as client:
        client.ask("POST", CLASSIFY, GOOD, {**PROTO, "Connect-Timeout-Ms": "30000"})
        client.ask("POST", CLASSIFY, frame(GOOD), {**WEB, "grpc-timeout": "30S"})
        client.ask("POST", CLASSIFY, frame(GOOD), {**WEB, "grpc-timeout": "1H"})
        client.ask("POST", CLASSIFY, GOOD, PROTO)
    first, second, third, fourth = deadlines
    assert first is not None
    assert second is not None
    assert third is not None
    assert 0 < first < 30
    assert 0 < second < 30
    assert 30 < third < 3600
    assert fourth is None


def left(call: Call) -> float | None:
    return None if call.deadline is None else call.deadline - call.arrived


def test_page_of_an_allowed_origin_sees_the_errors(serve: Serve) -> None:
    served = serve(http=True, http_origins="https://page.example")
    with HttpClient(served.http_port) as client:
        origin = {"Origin": "https://page.example"}
        asked = {**origin, "Access-Control-Request-Method": "POST"}
        reply = client.ask("OPTIONS", CLASSIFY, headers=asked)
        assert reply.headers["access-control-allow-methods"] == "OPTIONS, POST"
        reply = client.ask("POST", CLASSIFY, UNKNOWN, {**PROTO, **origin})
        assert reply.status == 404
        assert "grpc-status" in reply.headers["access-control-expose-headers"]
        assert json.loads(reply.body)["code"] == "not_found"


def test_failure_of_another_protocol_is_unknown() -> None:
    from convserve_server.protocols.base import Failure
    from convserve_server.protocols.rest.rpc import connect_failure

    answer: Any = connect_failure(Failure(400, "of HTTP"))
    assert (answer.status, json.loads(answer.body)["code"]) == (500, "unknown")

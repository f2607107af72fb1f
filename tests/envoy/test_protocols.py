"""What callers speak: gRPC, streams, JSON, gRPC-Web from the pages of an origin."""

import base64
import http.client
import json
import re
import ssl
import threading
from collections.abc import Mapping
from typing import NamedTuple

import grpc
import pytest

from convserve import Client, DeadlineExceeded, MessageTooLarge, ServerFault
from convserve_protos import classifier_pb2 as pb
from tests.bundles import digit_of
from tests.clients.scripted_server import ScriptedServer, answer
from tests.envoy.conftest import TIMEOUT_S, Edge, StartEnvoy

pytestmark = pytest.mark.envoy

CLASSIFY = "/convserve.v1.Classifier/Classify"
JSON = {"content-type": "application/json"}
MIB = 2**20


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    edge: Edge, path: str, body: bytes, headers: Mapping[str, str], verb: str = "POST"
) -> Reply:
    """Asks Envoy over HTTP/1.1 and TLS."""
    context = ssl.create_default_context(cafile=str(edge.folder / "ca.crt"))
    host, _, port = edge.envoy.tls_address.rpartition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT_S, context=context)
    try:
        connection.request(verb, path, body, dict(headers))
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, found, reply.read())
    finally:
        connection.close()


def pixels(class_: int) -> dict[str, object]:
    data = base64.b64encode(digit_of(class_).tobytes()).decode()
    return {"count": 1, "height": 28, "width": 28, "channels": 1, "data": data}


def test_stream(edge: Edge) -> None:
    with edge.client() as client:
        outcomes = dict(client.stream(digit_of(number % 10) for number in range(50)))
    assert {number: outcome.label for number, outcome in outcomes.items()} == {  # type: ignore[union-attr]
        number: str(number % 10) for number in range(50)
    }


def test_json(edge: Edge) -> None:
    reply = ask(edge, "/convserve.v1.Classifier/ListModels", b"{}", JSON)
    (model,) = json.loads(reply.body)["models"]
    assert (reply.status, model["name"], model["version"]) == (200, "mnist", "1")
    body = json.dumps({"model": "mnist", "pixels": pixels(7)}).encode()
    reply = ask(edge, CLASSIFY, body, JSON)
    (result,) = json.loads(reply.body)["results"]
    rows = result["prediction"]["probabilities"]
    assert reply.status == 200
    assert rows.index(max(rows)) == 7
    reply = ask(edge, "/inference.GRPCInferenceService/ServerReady", b"{}", JSON)
    assert (reply.status, json.loads(reply.body)) == (200, {"ready": True})


def test_errors_in_json_have_their_details(edge: Edge) -> None:
    wrong = {**pixels(7), "height": 27}
    reply = ask(edge, CLASSIFY, json.dumps({"model": "mnist", "pixels": wrong}).encode(), JSON)
    status = json.loads(reply.body)
    assert (reply.status, status["code"]) == (400, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert "pixels" in status["message"]
    (bad,) = (each for each in status["details"] if each["@type"].endswith("BadRequest"))
    assert bad["field_violations"][0]["field"].startswith("pixels")
    reply = ask(edge, CLASSIFY, json.dumps({"model": "none", "pixels": pixels(1)}).encode(), JSON)
    assert reply.status == 404
    assert ask(edge, CLASSIFY, b"{", JSON).status == 400


@pytest.mark.parametrize(("text", "kind"), [(False, "grpc-web+proto"), (True, "grpc-web-text")])
def test_grpc_web(edge: Edge, text: bool, kind: str) -> None:
    message = pb.ListModelsRequest().SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    content = f"application/{kind}"
    headers = {
        "content-type": content, "accept": content, "x-grpc-web": "1",
        "origin": "http://localhost:8000",
    }  # fmt: skip
    sent = base64.b64encode(body) if text else body
    reply = ask(edge, "/convserve.v1.Classifier/ListModels", sent, headers)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "http://localhost:8000"
    # Each frame is base64 of its own.
    parts = [base64.b64decode(part) for part in re.findall(rb"[^=]+=*", reply.body)]
    got = b"".join(parts) if text else reply.body
    size = int.from_bytes(got[1:5], "big")
    (model,) = pb.ListModelsResponse.FromString(got[5 : 5 + size]).models
    assert model.name == "mnist"
    trailers = got[5 + size :]
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers


@pytest.mark.parametrize(
    ("origin", "allowed"), [("http://localhost:8000", True), ("https://example.org", False)]
)
def test_browser_asks_whether_a_page_may_call(edge: Edge, origin: str, allowed: bool) -> None:
    headers = {
        "origin": origin, "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-grpc-web",
    }  # fmt: skip
    reply = ask(edge, CLASSIFY, b"", headers, "OPTIONS")
    assert ("access-control-allow-origin" in reply.headers) is allowed


class TimedServer(ScriptedServer):
    """Notes how long each caller waits."""

    def __init__(self) -> None:
        self.left_s: list[float] = []
        super().__init__()
        self.health["convserve.v1.Classifier"] = self.health[""]

    def Classify(
        self, request: pb.ClassifyRequest, context: grpc.ServicerContext
    ) -> pb.ClassifyResponse:
        self.left_s.append(context.time_remaining() or 0.0)
        return super().Classify(request, context)


def test_deadline_and_departure_of_a_caller_reach_the_server(start_envoy: StartEnvoy) -> None:
    server = TimedServer()
    released = threading.Event()
    try:
        envoy = start_envoy(server.address)
        with Client(envoy.address, model="mnist", retry_unavailable=False) as client:
            client.classify(digit_of(1), timeout=25.0)
            assert 0 < server.left_s[0] <= 25.0

            def hold(request: pb.ClassifyRequest) -> pb.ClassifyResponse:
                released.wait(TIMEOUT_S)
                return answer(request)

            server.answer = hold
            with pytest.raises(DeadlineExceeded):
                client.classify(digit_of(2), timeout=0.5)
            assert server.abandoned.acquire(timeout=TIMEOUT_S)
    finally:
        released.set()
        server.stop()


def test_request_over_the_limit_of_a_server_is_refused_in_its_words(edge: Edge) -> None:
    with edge.client(max_bytes_per_call=64 * MIB) as client:
        with pytest.raises(MessageTooLarge) as caught:
            client.classify_images(bytes(20 * MIB))
        assert caught.value.limit_bytes == 16 * MIB


def test_request_over_the_limit_of_envoy_is_refused_without_a_reason(edge: Edge) -> None:
    with edge.client(max_bytes_per_call=64 * MIB) as client:
        with pytest.raises(ServerFault, match="Payload Too Large") as caught:
            client.classify_images(bytes(26 * MIB))
        assert caught.value.code is grpc.StatusCode.UNKNOWN
    body = b'{"model": "' + b"x" * 26 * MIB + b'"}'
    assert ask(edge, CLASSIFY, body, JSON).status == 413

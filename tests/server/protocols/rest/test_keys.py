"""Keys over HTTP: REST, Open Inference, Connect and gRPC-Web go by the same table."""

import json
from collections.abc import Iterator

import pytest
from google.rpc import code_pb2

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.permissions import RULES
from convserve_server.protocols.rest import app
from convserve_server.protocols.rest.app import ROUTES, RestApp
from convserve_server.protocols.rest.messages import (
    HttpAnswer,
    HttpRequest,
    Operation,
    RestOptions,
)
from convserve_server.security.keys import Permission
from convserve_server.transports.http_connection import SMALL_BODY
from tests.bundles import write_bundle
from tests.server.conftest import Serve, answers, request_for
from tests.server.http_client import PNG, HttpClient, request_bytes
from tests.server.keys import key_table, make_key_check, make_rates, metadata_of
from tests.server.protocols.rest.test_rpc import JSON, PROTO, WEB, frame, frames
from tests.server.protocols.test_key_check import Clock

CLASSIFY = "/convserve.v1.Classifier/Classify"
PAYLOAD = request_for(3).SerializeToString()
KEYS = "".join(
    [
        *(key_table(each, f'permissions = ["{each}"]') for each in Permission),
        key_table("usual"),
        key_table("some", 'models = ["mnist"]'),
    ]
)
CHALLENGE = ("www-authenticate", "Bearer")


def header_of(key: str | None) -> dict[str, str]:
    """The header of a key."""
    return dict(metadata_of(key))


@pytest.fixture
def client(serve: Serve) -> Iterator[HttpClient]:
    """A connection to a server with keys, and the models mnist and secret."""
    served = serve(http=True, key_check=make_key_check(KEYS))
    write_bundle(served.models, name="secret")
    served.worker.control.scan()  # type: ignore[attr-defined]
    with HttpClient(served.http_port) as client:
        yield client


#: A request for each path, with the model mnist.
BODIES = {
    "classify": PNG,
    "infer": b'{"inputs": []}',
}


def request_of(route: app.Route) -> tuple[str, str, bytes | None]:
    target = route.path.replace("{model}", "mnist").replace("{version}", "1")
    body = BODIES.get(target.replace(":", "/").rpartition("/")[2], b"{}")
    return route.verb, target, None if route.verb == "GET" else body


def test_paths_are_checked_for_the_method_that_they_become() -> None:
    rest = RestApp(RestOptions(max_message_bytes=2**20, max_images=8))
    for route in ROUTES:
        verb, target, body = request_of(route)
        step = rest.handle(HttpRequest(verb, target, "", {}, body or b""))
        if isinstance(step, Operation):
            assert route.method == step.method, route.path
        else:
            # What makes no call: that the server lives, and the description of the paths.
            assert step.status == 200, (route.path, step)
            assert route.method in ("", "/inference.GRPCInferenceService/ServerLive")
        assert not route.method or route.method in RULES


def test_each_path_needs_a_key_with_its_permission(client: HttpClient) -> None:
    for route in ROUTES:
        verb, target, body = request_of(route)
        if not route.method:
            assert client.ask(verb, target, body).status == 200
            continue
        reply = client.ask(verb, target, body)
        assert (reply.status, reply.json["reason"]) == (401, "UNAUTHENTICATED"), target
        assert CHALLENGE in reply.headers.items()
        reply = client.ask(verb, target, body, {"Authorization": "Bearer other"})
        assert (reply.status, reply.json["reason"]) == (401, "UNAUTHENTICATED")
        wanted = RULES[route.method].permission
        for permission in Permission:
            reply = client.ask(verb, target, body, header_of(permission))
            if permission == wanted:
                assert reply.status not in (401,), target
            else:
                assert reply.status == 403, target
                assert reply.json == {
                    "error": f"permission: expected {wanted}, got a key without it",
                    "reason": "PERMISSION_DENIED",
                    "field": "permission",
                    "expected": wanted,
                    "got": "a key without it",
                }


def test_page_and_the_question_of_a_browser_need_no_key(client: HttpClient) -> None:
    assert client.ask("GET", "/").status == 200
    reply = client.ask(
        "OPTIONS",
        "/v1/models/mnist:classify",
        None,
        {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert reply.status == 204
    assert "authorization" in reply.headers["access-control-allow-headers"].split(", ")


def test_picture_is_classified_with_a_key_that_may_only_ask(client: HttpClient) -> None:
    target = "/v1/models/mnist:classify?pixels=true"
    reply = client.ask("POST", target, PNG, header_of("ask"))
    assert reply.status == 200
    assert "pixels" in reply.json["results"][0]


def test_body_of_a_refused_request_is_not_parsed(client: HttpClient) -> None:
    for headers in ({}, {"Content-Encoding": "gzip"}):
        reply = client.ask("POST", "/v2/models/mnist/infer", b"\xff", headers)
        assert reply.status == 401


@pytest.mark.parametrize("size", [{"Content-Length": "4000000"}, {"Transfer-Encoding": "chunked"}])
@pytest.mark.parametrize(
    ("target", "headers", "reply_has"),
    [
        ("/v1/models/mnist:classify", {}, '"reason":"UNAUTHENTICATED"'),
        ("/v2/models/secret/infer", header_of("some"), "secret"),
        (CLASSIFY, PROTO, '"code":"unauthenticated"'),
    ],
)
def test_large_body_is_not_received_of_who_may_not_send_it(
    client: HttpClient, target: str, headers: dict[str, str], reply_has: str, size: dict[str, str]
) -> None:
    client.send(request_bytes("POST", target, b"", {**headers, **size, "Expect": "100-continue"}))
    reply = client.read()
    assert reply.status in (401, 403)
    assert reply_has in reply.body.decode()
    assert reply.headers["connection"] == "close"
    assert client.is_closed()


def test_large_body_of_who_may_send_it_counts_once(serve: Serve) -> None:
    rates = make_rates(Clock())
    served = serve(
        http=True, key_check=make_key_check(key_table("web", "rate = 1\nburst = 2"), rates)
    )
    large = {**PROTO, **header_of("web")}
    wrong = bytes(2 * SMALL_BODY)
    with HttpClient(served.http_port) as client:
        statuses = [client.ask("POST", CLASSIFY, wrong, large).status for _ in range(3)]
    assert statuses == [400, 400, 429]


def test_model_of_others_is_as_one_that_does_not_exist(client: HttpClient) -> None:
    for verb, target, body in (
        ("POST", "/v1/models/{}:classify", PNG),
        ("POST", "/v2/models/{}/infer", b"{"),
        ("GET", "/v2/models/{}", None),
        ("GET", "/v2/models/{}/ready", None),
        ("GET", "/v2/models/{}/config", None),
        ("GET", "/v2/models/{}/stats", None),
    ):
        replies = [
            client.ask(verb, target.format(name), body, header_of("some"))
            for name in ("secret", "absent")
        ]
        assert [each.status for each in replies] == [403, 403], target
        assert replies[0].body.replace(b"secret", b"absent") == replies[1].body


def test_lists_have_only_the_models_that_a_key_sees(client: HttpClient) -> None:
    for key, names in (("usual", {"mnist", "secret"}), ("some", {"mnist"})):
        models = client.ask("GET", "/v1/models", None, header_of(key)).json["models"]
        assert {each["name"] for each in models} == names
        stats = client.ask("GET", "/v2/models/stats", None, header_of(key)).json["model_stats"]
        assert {each["name"] for each in stats} == names
        index = client.ask("POST", "/v2/repository/index", b"", header_of(key)).json
        assert {each["name"] for each in index} == names


def test_connect_and_grpc_web_say_it_in_their_own_words(client: HttpClient) -> None:
    reply = client.ask("POST", CLASSIFY, PAYLOAD, PROTO)
    assert reply.status == 401
    assert json.loads(reply.body)["code"] == "unauthenticated"
    assert CHALLENGE in reply.headers.items()
    reply = client.ask("POST", CLASSIFY, b"{", {**JSON, **header_of("list")})
    assert (reply.status, json.loads(reply.body)["code"]) == (403, "permission_denied")
    reply = client.ask("POST", CLASSIFY, PAYLOAD, {**PROTO, **header_of("ask")})
    assert answers(pb.ClassifyResponse.FromString(reply.body)) == [3]
    message, trailers = frames(client.ask("POST", CLASSIFY, frame(PAYLOAD), WEB))
    assert message is None
    assert trailers["grpc-status"] == str(code_pb2.UNAUTHENTICATED)
    message, trailers = frames(
        client.ask("POST", CLASSIFY, frame(PAYLOAD), {**WEB, **header_of("ask")})
    )
    assert trailers["grpc-status"] == "0"


def test_method_that_does_not_exist_is_only_for_who_has_a_key(client: HttpClient) -> None:
    for form in (PROTO, JSON):
        assert client.ask("POST", "/a.B/C", b"{}", form).status == 401
        assert client.ask("POST", "/a.B/C", b"{}", {**form, **header_of("ask")}).status == 501


def test_request_over_the_rate_says_when_to_retry_and_counts_once(serve: Serve) -> None:
    clock = Clock()
    rates = make_rates(clock)
    served = serve(http=True, key_check=make_key_check(key_table("web", "rate = 0.5"), rates))
    target = "/v1/models/mnist:classify?pixels=true"
    with HttpClient(served.http_port) as client:
        # It makes two calls, of which the second asks for the shape of the pixels.
        assert client.ask("POST", target, PNG, header_of("web")).status == 200
        reply = client.ask("POST", target, PNG, header_of("web"))
        assert (reply.status, reply.headers["retry-after"]) == (429, "2")
        assert reply.json["reason"] == "RATE_LIMITED"
        reply = client.ask("POST", CLASSIFY, PAYLOAD, {**PROTO, **header_of("web")})
        assert (reply.status, reply.headers["retry-after"]) == (429, "2")
        clock.now += 2
        assert client.ask("POST", target, PNG, header_of("web")).status == 200


def test_call_that_is_refused_here_is_counted_as_refused() -> None:
    refused: list[tuple[str, str]] = []
    options = RestOptions(max_message_bytes=2**20, max_images=8, key_check=make_key_check(KEYS))
    rest = RestApp(options, (), lambda method, error: refused.append((method, error.reason)))
    answer = rest.handle(HttpRequest("GET", "/v1/models", "", {}, b""))
    assert isinstance(answer, HttpAnswer)
    assert answer.status == 401
    assert refused == [("/convserve.v1.Classifier/ListModels", "UNAUTHENTICATED")]

"""HTTP/1.1 itself: messages, connections, limits, and clients that do not do as they should."""

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convserve_server.protocols.base import Call
from convserve_server.protocols.rest import pages
from convserve_server.protocols.rest.messages import (
    HttpAnswer,
    HttpRequest,
    Operation,
    RestOptions,
)
from convserve_server.transports import http, http_connection
from convserve_server.transports.base import IDLE_CALLS_IN_A_ROW, TransportOptions
from convserve_server.transports.http import HttpTransport
from tests.server.conftest import WAIT_S, CallWatch, Serve, Served, answers, request_for
from tests.server.http_client import PNG, HttpClient, Reply, chunked, multipart, request_bytes
from tests.server.transports.test_conformance import CLASSIFY, until
from tests.server.transports.test_conformance_departures import waiting

URL = "/v1/models/mnist:classify"
LIVE = "/v2/health/live"
READY = "/v2/health/ready"


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(http=True)


@pytest.fixture
def client(served: Served) -> Iterator[HttpClient]:
    with HttpClient(served.http_port) as client:
        yield client


def hold(served: Served) -> Callable[[], object]:
    """Has the engine hold one batch, so that others wait; returns what lets it go."""
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()

    def release() -> None:
        served.engine.release()
        assert answers(running.result()) == [0]

    return release


def test_connection_is_used_again_until_its_client_asks_to_close(client: HttpClient) -> None:
    for _ in range(2):
        reply = client.ask("GET", LIVE)
        assert (reply.status, reply.json) == (200, {"live": True})
        assert "connection" not in reply.headers
    assert client.ask("HEAD", LIVE).headers["content-length"] == "13"
    assert client.ask("POST", URL, PNG).status == 200
    reply = client.ask("GET", LIVE, headers={"Connection": "close"})
    assert reply.headers["connection"] == "close"
    assert client.is_closed()


@pytest.mark.parametrize(("keep", "expected"), [(True, "keep-alive"), (False, "close")])
def test_client_of_http_1_0(client: HttpClient, keep: bool, expected: str) -> None:
    client.send(
        f"GET {LIVE} HTTP/1.0\r\n".encode() + b"Connection: keep-alive\r\n" * keep + b"\r\n"
    )
    reply = client.read()
    assert (reply.status, reply.headers["connection"]) == (200, expected)
    if keep:
        assert client.ask("GET", LIVE).status == 200
    else:
        assert client.is_closed()


def test_pipelined_requests_are_answered_in_their_order(served: Served, client: HttpClient) -> None:
    release = hold(served)
    client.send(
        request_bytes("POST", URL, PNG, {"x-request-id": "first"})
        + request_bytes("GET", LIVE)
        + request_bytes("POST", URL, b"", {"x-request-id": "third"})
        + request_bytes("GET", "/nothing")
    )
    until(lambda: waiting(served) == 1)
    release()
    replies = [client.read() for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 400, 404]
    assert replies[0].headers["x-request-id"] == "first"
    assert replies[2].headers["x-request-id"] == "third"


def test_pipeline_without_end_is_refused(served: Served, client: HttpClient) -> None:
    release = hold(served)
    client.send(request_bytes("POST", URL, PNG))
    until(lambda: waiting(served) == 1)
    client.send(request_bytes("GET", LIVE) * 65)
    assert served.http is not None
    (connection,) = served.http._connections
    until(lambda: connection._deaf)
    release()
    statuses = [client.read().status for _ in range(66)]
    assert statuses == [200] * 65 + [400]
    assert client.is_closed()


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01", 400, "INVALID_HTTP", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "INVALID_HTTP", id="HTTP/2"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", 505, "HTTP_VERSION", id="other version"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, "INVALID_HTTP", id="no host"),
        pytest.param(b"GET nothing HTTP/1.1\r\nHost: a\r\n\r\n", 400, "INVALID_HTTP", id="no path"),
        pytest.param(b"GET / HTTP/1.1\r\nHost a\r\n\r\n", 400, "INVALID_HTTP", id="no colon"),
        pytest.param(b"NONE / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "INVALID_HTTP", id="no method"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            400, "INVALID_HTTP", id="two lengths",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            400, "INVALID_HTTP", id="lengths that differ",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            400, "INVALID_HTTP", id="negative length",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400, "INVALID_HTTP", id="no size of a chunk",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2**14 + b"\r\n\r\n",
            431, "HEAD_TOO_LARGE", id="large field",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 101 + b"\r\n",
            431, "HEAD_TOO_LARGE", id="many fields",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2**15, 431, "HEAD_TOO_LARGE", id="no end"
        ),
        pytest.param(
            b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            414, "PATH_TOO_LONG", id="long path",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
            413, "MESSAGE_TOO_LARGE", id="large body, which is not sent",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n"
            b"Expect: 100-continue\r\n\r\n",
            413, "MESSAGE_TOO_LARGE", id="large body, which is held back",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
            b"Content-Length: 1\r\n\r\na",
            400, "INVALID_HTTP", id="upgrade with a body",
        ),
    ],
)  # fmt: skip
def test_bytes_that_are_no_request_are_answered_and_end_the_connection(
    served: Served, request_: bytes, status: int, reason: str
) -> None:
    with HttpClient(served.http_port) as client:
        client.send(request_)
        reply = client.read()
        assert (reply.status, reply.json["reason"]) == (status, reason)
        assert reply.json.keys() >= {"error", "field", "expected", "got"}
        assert reply.headers["connection"] == "close"
        assert client.is_closed()
    with HttpClient(served.http_port) as client:
        assert client.ask("GET", LIVE).status == 200


def test_client_that_would_rather_speak_http_2_is_answered(client: HttpClient) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}
    assert client.ask("GET", LIVE, headers=headers).status == 200
    assert client.is_closed()


def test_body_that_is_held_back_is_asked_for(client: HttpClient) -> None:
    whole = request_bytes("POST", URL, PNG, {"Expect": "100-continue"})
    client.send(whole[: -len(PNG)])
    assert client.read().status == 100
    client.send(PNG)
    assert client.read().status == 200


def test_body_in_chunks_is_read_up_to_the_limit(serve: Serve) -> None:
    served = serve(http=True, max_message_bytes=20_000)
    with HttpClient(served.http_port) as client:
        headers = {"Transfer-Encoding": "chunked"}
        body = chunked(PNG[:10], PNG[10:])
        assert client.ask("POST", URL, body, headers).status == 200
        # It need not end: the answer comes as soon as it is too large.
        client.send(request_bytes("POST", URL, b"4e20\r\n" + bytes(20_000), headers))
        client.send(b"\r\n1\r\na")
        reply = client.read()
        assert (reply.status, reply.json["reason"]) == (413, "MESSAGE_TOO_LARGE")
        assert client.is_closed()


def test_body_of_very_small_parts_is_refused(client: HttpClient) -> None:
    headers = {"Transfer-Encoding": "chunked"}
    # A few of any size, and more of a fair one.
    few = chunked(*[b"a"] * 1024)
    assert client.ask("POST", URL, few, headers).json["reason"] == "NOT_A_PICTURE"
    fair = chunked(*[b"a" * 64] * 1100)
    assert client.ask("POST", URL, fair, headers).json["reason"] == "NOT_A_PICTURE"
    client.send(request_bytes("POST", URL, b"1\r\na\r\n" * 1025, headers))
    reply = client.read()
    assert (reply.status, reply.json["reason"]) == (400, "TOO_MANY_PARTS")
    assert client.is_closed()


def test_bodies_of_all_connections_together_have_a_limit(serve: Serve) -> None:
    served = serve(http=True, max_message_bytes=2**20, max_stream_bytes=1)
    clients = [HttpClient(served.http_port) for _ in range(3)]
    try:
        head = request_bytes("POST", URL, None, {"Content-Length": str(2**20)})
        clients[0].send(head + bytes(2**20 - 1))
        until(lambda: client_bytes(served) == 2**20 - 1)
        # As much as is still free: half of what the first has left.
        clients[1].send(head + bytes(2**19))
        until(lambda: client_bytes(served) == 2**20 - 1 + 2**19)
        clients[1].send(bytes(2))
        reply = clients[1].read()
        assert (reply.status, reply.json["reason"]) == (503, "TOO_MANY_BYTES")
        assert reply.headers["retry-after"] == "1"
        clients[0].send(b"\0")
        # A message has a few bytes beside the body.
        assert clients[0].read().json["field"] == "body"
    finally:
        for client in clients:
            client.close()
    until(lambda: client_bytes(served) == 0)


def test_small_bodies_are_received_whoever_holds_the_rest(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "SMALL_BODY", len(PNG))
    served = serve(http=True, max_message_bytes=2**20, max_stream_bytes=1)
    assert served.http is not None
    # All that there is, and more.
    served.http.body_bytes = 2**30
    with HttpClient(served.http_port) as client:
        assert client.ask("POST", URL, PNG).status == 200
        reply = client.ask("POST", URL, PNG + b"\0")
        assert (reply.status, reply.json["reason"]) == (503, "TOO_MANY_BYTES")
    assert client_bytes(served) == 2**30


def client_bytes(served: Served) -> int:
    """Bytes of bodies that are being received."""
    assert served.http is not None
    return served.http.body_bytes


@pytest.mark.parametrize(
    ("sent", "part"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: ", "head", id="head"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na", "body", id="body"
        ),
    ],
)
def test_request_that_does_not_come_to_its_end_is_refused(
    served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes, part: str
) -> None:
    # Long enough for what is sent, and the rest has its minute.
    monkeypatch.setattr(http_connection, f"{part.upper()}_S", 0.5)
    with HttpClient(served.http_port) as client:
        client.send(sent)
        reply = client.read()
        assert (reply.status, reply.json["reason"], reply.json["field"]) == (408, "TOO_SLOW", part)
        assert client.is_closed()


def test_connection_on_which_nothing_comes_is_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hasty:
        hasty.setattr(http_connection, "HEAD_S", 0.2)
        with HttpClient(served.http_port) as client:
            assert client.is_closed()
    assert served.http is not None
    served.http.keepalive_s = 0.2
    with HttpClient(served.http_port) as client:
        assert client.ask("GET", LIVE).status == 200
        assert client.is_closed()


def test_answer_that_is_not_read_ends_the_connection(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "BODY_S", 0.2)
    monkeypatch.setattr(http_connection, "BYTES_PER_S", 2**30)
    (tmp_path / "index.html").touch()
    # More than the kernel keeps for a client that does not read.
    (tmp_path / "large.txt").write_bytes(bytes(2**24))
    monkeypatch.setattr(pages, "web_folder", lambda: tmp_path)
    served = serve(http=True)
    transport = served.http
    assert transport is not None
    with HttpClient(served.http_port) as client:
        client.send(request_bytes("GET", "/large.txt"))
        client.wait()
        until(lambda: not transport._connections)
        with pytest.raises((OSError, AssertionError), match=r"reset|too early"):
            client.read()


def test_connection_that_is_silent_for_longest_gives_way(serve: Serve) -> None:
    served = serve(http=True, http_max_connections=2)
    with HttpClient(served.http_port) as first, HttpClient(served.http_port) as second:
        assert [client.ask("GET", LIVE).status for client in (first, second, first)] == [200] * 3
        assert asks(served) == 200
        assert second.is_closed()
        assert first.ask("GET", LIVE).status == 200


def test_connection_beside_as_many_that_are_being_answered_is_refused(serve: Serve) -> None:
    served = serve(http=True, http_max_connections=2)
    release = hold(served)
    with HttpClient(served.http_port) as first, HttpClient(served.http_port) as second:
        for client in (first, second):
            client.send(request_bytes("POST", URL, PNG))
        until(lambda: waiting(served) == 2)
        with HttpClient(served.http_port) as third:
            reply = third.read()
            assert (reply.status, reply.json["reason"]) == (503, "TOO_MANY_CONNECTIONS")
            assert third.is_closed()
        release()
        assert [client.read().status for client in (first, second)] == [200, 200]
        second.close()
        until(lambda: asks(served) == 200)
        assert first.ask("GET", LIVE).status == 200


def asks(served: Served) -> int:
    """The status of a request on a new connection."""
    with HttpClient(served.http_port) as client:
        return client.ask("GET", LIVE).status


def test_client_that_leaves_takes_its_request_from_the_queue(served: Served) -> None:
    release = hold(served)
    with HttpClient(served.http_port) as client:
        client.send(request_bytes("POST", URL, PNG))
        until(lambda: waiting(served) == 1)
    until(lambda: waiting(served) == 0)
    release()


def test_request_that_would_be_answered_too_late_says_so(
    served: Served, client: HttpClient
) -> None:
    release = hold(served)
    reply = client.ask("POST", URL, PNG, {"x-timeout-ms": "100"})
    assert (reply.status, reply.json["reason"]) in (
        (504, "DEADLINE_PASSED"), (429, "CANNOT_MEET_DEADLINE"),
    )  # fmt: skip
    until(lambda: waiting(served) == 0)
    release()
    assert client.ask("POST", URL, PNG, {"x-timeout-ms": "60000"}).status == 200


def test_header_fields_reach_the_call(serve: Serve) -> None:
    seen: list[Call] = []
    callers: list[object] = []

    def watch(call: Call) -> None:
        seen.append(call)
        callers.append(call.caller())

    served = serve(http=True, interceptors=[CallWatch(CLASSIFY, watch)])
    with HttpClient(served.http_port) as client:
        reply = client.ask("POST", URL, PNG, {"Convserve-Priority": "batch"})
        assert reply.status == 200
        assert seen[0].header("convserve-priority") == "batch"
        assert seen[0].connection.startswith("ipv4:127.0.0.1:")
        assert ("convserve-priority", "batch") in callers[0].metadata  # type: ignore[attr-defined]
        reply = client.ask("POST", URL, PNG, {"Convserve-Priority": "urgent"})
        assert (reply.status, reply.json["field"]) == (400, "convserve-priority")


def test_fault_of_ours_names_its_id_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Call) -> None:
        raise RuntimeError("broken on purpose")

    served = serve(http=True, interceptors=[CallWatch(CLASSIFY, fail)])
    with HttpClient(served.http_port) as client:
        reply = client.ask("POST", URL, PNG)
        assert (reply.status, reply.json["reason"]) == (500, "INTERNAL_FAULT")
        assert "broken on purpose" not in reply.json["error"]
        ids = [getattr(record, "fault_id", "") for record in caplog.records]
        assert [one for one in ids if one and one in reply.json["error"]]
        assert client.ask("GET", LIVE).status == 200


def test_server_that_stops_answers_what_it_has_and_ends_the_connections(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "LINGER_S", 0.2)
    served = serve(http=True, lame_duck_s=60.0)
    release = hold(served)
    with (
        HttpClient(served.http_port) as busy,
        HttpClient(served.http_port) as idle,
        HttpClient(served.http_port) as asking,
        HttpClient(served.http_port) as half,
    ):
        assert idle.ask("GET", READY).json == {"ready": True}
        half.send(b"GET / HTTP/1.1\r\n")
        busy.send(request_bytes("POST", URL, PNG))
        until(lambda: waiting(served) == 1)
        stopping = threading.Thread(target=served.worker.stop)
        stopping.start()
        reply = ready_until(served, 503)
        assert reply.json == {"ready": False}
        assert reply.headers["connection"] == "close"
        assert asking.ask("GET", LIVE).headers["connection"] == "close"
        assert asking.is_closed()
        release()
        reply = busy.read()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert busy.is_closed()
        assert idle.is_closed()
        reply = half.read()
        assert (reply.status, reply.json["reason"]) == (503, "DRAINING")
        stopping.join()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.http_port))


def ready_until(served: Served, status: int) -> Reply:
    """Ask whether the server is ready until the answer has a status."""
    while True:
        with HttpClient(served.http_port) as client:
            reply = client.ask("GET", READY)
            if reply.status == status:
                return reply


def test_gzip_is_understood_and_bounded(serve: Serve) -> None:
    served = serve(http=True, max_message_bytes=2**16)
    with HttpClient(served.http_port) as client:
        gzipped = {"Content-Encoding": "gzip"}
        assert client.ask("POST", URL, gzip.compress(PNG), gzipped).status == 200
        bomb = gzip.compress(bytes(2**25))
        assert len(bomb) < 2**16
        reply = client.ask("POST", URL, bomb, gzipped)
        assert (reply.status, reply.json["reason"]) == (413, "MESSAGE_TOO_LARGE")
        assert client.ask("GET", LIVE).status == 200


def test_large_answers_are_compressed_where_that_is_asked_for(client: HttpClient) -> None:
    body, headers = multipart(*[PNG] * 20)
    for accept, expected in (("gzip, br", "gzip"), ("gzip;q=0", None), ("br", None)):
        reply = client.ask("POST", URL, body, {**headers, "Accept-Encoding": accept})
        assert (reply.status, reply.headers.get("content-encoding")) == (200, expected)
        assert len(json.loads(reply.body)["results"]) == 20
    reply = client.ask("GET", LIVE, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in reply.headers


def test_connection_that_is_old_ends_with_an_answer(serve: Serve) -> None:
    served = serve(http=True, max_connection_age_s=0.2)
    with HttpClient(served.http_port) as client:
        while "connection" not in (reply := client.ask("GET", LIVE)).headers:
            assert reply.status == 200
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert client.is_closed()


def test_address_that_is_in_use_says_so(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = TransportOptions(
            host="127.0.0.1",
            port=taken.getsockname()[1],
            max_message_bytes=1,
            keepalive_s=10,
            max_connection_age_s=0.0,
            reuse_port=False,
        )
        rest = RestOptions(max_message_bytes=1, max_images=1)
        router = serve().worker._router
        with pytest.raises(OSError, match=r"cannot listen on 127.0.0.1:\d+: .*in use"):
            HttpTransport(options, rest).start(router)


def test_requests_that_come_together_are_not_those_of_an_idle_caller(serve: Serve) -> None:
    marks: list[bool] = []
    hold_next, held, release = (threading.Event() for _ in range(3))

    def watch(call: Call) -> None:
        marks.append(call.idle_caller)
        if hold_next.is_set():
            # Each of these calls is answered at once, on the thread that reads all connections.
            hold_next.clear()
            held.set()
            assert release.wait(WAIT_S)

    served = serve(
        http=True, interceptors=[CallWatch("/convserve.v1.Classifier/ListModels", watch)]
    )
    with (
        HttpClient(served.http_port) as first,
        HttpClient(served.http_port) as second,
        HttpClient(served.http_port) as third,
    ):
        for client in (second, third):
            assert client.ask("GET", LIVE).status == 200
        for _ in range(2 * IDLE_CALLS_IN_A_ROW):
            assert first.ask("GET", "/v1/models").status == 200
        assert marks[-1]
        marks.clear()
        hold_next.set()
        for client in (first, second, third):
            client.send(request_bytes("GET", "/v1/models"))
            assert held.wait(WAIT_S)
        release.set()
        for client in (first, second, third):
            assert client.read().status == 200
        assert marks == [True, True, False]


class SlowApp:
    """Holds what is large until a test lets it go; in front of what makes steps of requests."""

    def __init__(self, served: Served) -> None:
        assert served.http is not None
        self._handle = served.http._app.handle
        self.entered, self.released = threading.Event(), threading.Event()
        served.http._app.handle = self.handle  # type: ignore[method-assign]

    def handle(self, request: HttpRequest) -> HttpAnswer | Operation:
        if len(request.body) > http.LARGE_BYTES or "content-encoding" in request.headers:
            self.entered.set()
            assert self.released.wait(WAIT_S)
        return self._handle(request)


def test_large_request_holds_up_no_other(served: Served, client: HttpClient) -> None:
    app = SlowApp(served)
    large = PNG + bytes(http.LARGE_BYTES)
    client.send(request_bytes("POST", URL, large))
    assert app.entered.wait(WAIT_S)
    assert client_bytes(served) == len(large)
    assert asks(served) == 200
    app.released.set()
    assert client.read().status in (200, 400)
    assert client_bytes(served) == 0


def test_compressed_request_holds_up_no_other(served: Served, client: HttpClient) -> None:
    app = SlowApp(served)
    packed = gzip.compress(PNG)
    client.send(request_bytes("POST", URL, packed, {"Content-Encoding": "gzip"}))
    assert app.entered.wait(WAIT_S)
    assert asks(served) == 200
    app.released.set()
    assert client.read().status == 200


def test_large_request_of_a_client_that_left_is_forgotten(served: Served) -> None:
    app = SlowApp(served)
    with HttpClient(served.http_port) as client:
        client.send(request_bytes("POST", URL, PNG + bytes(http.LARGE_BYTES)))
        assert app.entered.wait(WAIT_S)
    until(lambda: client_bytes(served) == 0)
    app.released.set()
    assert asks(served) == 200


def test_large_answer_is_made_beside_the_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LARGE_BYTES", 10)
    with HttpClient(serve(http=True).http_port) as client:
        reply = client.ask("POST", f"{URL}?pixels=true", PNG, {"x-request-id": "one"})
        assert reply.status == 200
        assert reply.headers["x-request-id"] == "one"
        assert reply.json["results"][0]["pixels"]["height"] == 28
        assert client.ask("GET", "/openapi.json").json["openapi"]

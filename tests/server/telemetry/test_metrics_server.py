"""The port of metrics: what it answers, and what readers cannot do to it."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from convserve_server.security.secrets import Secret
from convserve_server.security.tls import TlsFiles, server_context
from convserve_server.telemetry import metrics_server
from convserve_server.telemetry.metrics_server import MetricsServer
from tests.certificates import Authority

WAIT_S = 60.0
PAGE = b"convserve_calls_total 1.0\n"


def render(accept: str) -> tuple[bytes, str]:
    return PAGE, f"text/plain; accepted={accept}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    monkeypatch.setattr(metrics_server, "_LOOK_S", 0.02)
    made = MetricsServer("127.0.0.1", 0, render)
    made.start()
    yield made
    made.close()


def ask(
    server: MetricsServer, path: str = "/metrics", method: str = "GET", **headers: str | bytes
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def ended(connection: socket.socket) -> bytes:
    """What comes until the server ends a connection."""
    connection.settimeout(WAIT_S)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(4096):
            received += data
    return received


def test_get_and_head_are_answered_with_the_page(server: MetricsServer) -> None:
    status, headers, body = ask(server, Accept="application/openmetrics-text")
    assert (status, body) == (200, PAGE)
    assert headers["content-type"] == "text/plain; accepted=application/openmetrics-text"
    assert headers["content-length"] == str(len(PAGE))
    assert "python" not in headers["server"].lower()
    assert ask(server, "/metrics?name=x")[::2] == (200, PAGE)
    status, headers, body = ask(server, method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(PAGE)), b"")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics2", "/../metrics"])
def test_other_paths_are_not_found(server: MetricsServer, path: str) -> None:
    status, headers, body = ask(server, path)
    assert (status, body) == (404, b"404 Not Found\n")
    assert headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(server: MetricsServer, method: str) -> None:
    status, headers, body = ask(server, method=method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert body == b"405 Method Not Allowed\n"


def test_key_is_asked_for_before_anything_else(server: MetricsServer) -> None:
    server.key = Secret("s3cret")
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic s3cret"},
        {"Authorization": "s3cret"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer s3cr\xe9t"},
    ):
        for path, method in (("/metrics", "GET"), ("/none", "GET"), ("/metrics", "POST")):
            status, answer, body = ask(server, path, method, **headers)
            assert (status, answer["www-authenticate"]) == (401, "Bearer")
            assert body == b"401 Unauthorized\n"
    assert ask(server, Authorization="Bearer s3cret")[0] == 200
    assert ask(server, Authorization="bearer  s3cret")[0] == 200
    # As when its file has changed.
    server.key = Secret("another")
    assert ask(server, Authorization="Bearer s3cret")[0] == 401
    assert ask(server, Authorization="Bearer another")[0] == 200
    server.key = Secret("schlüssel")
    assert ask(server, Authorization="Bearer schlüssel".encode())[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + 5000 * b"a" + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /metrics HTTP/1.1\r\n" + b"x: " + 70000 * b"y" + b"\r\n\r\n", b"431"),
        (b"GET /metrics HTTP/1.1\r\n" + 200 * b"x: y\r\n" + b"\r\n", b"431"),
        (b"what is this\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n", b"400"),
    ],
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(
    server: MetricsServer, sent: bytes, status: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(sent)
        answer = ended(connection)
    assert status in answer.split(b"\n", 1)[0] or not answer
    assert ask(server)[0] == 200


def test_reader_that_does_not_go_on_is_ended(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "TIME_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    connection.sendall(b"a")

        thread = threading.Thread(target=trickle)
        thread.start()
        assert ended(connection) == b""
        stop.set()
        thread.join()
    assert ask(server)[0] == 200


def test_connections_beyond_the_limit_are_closed_and_others_answered_when_they_end(
    server: MetricsServer,
) -> None:
    with contextlib.ExitStack() as there:
        for _ in range(metrics_server.CONNECTIONS):
            there.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        with socket.create_connection(("127.0.0.1", server.port)) as one_more:
            assert ended(one_more) == b""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert ask(server)[0] == 200
            return


def test_port_in_use_and_a_foreign_address_are_refused(server: MetricsServer) -> None:
    for host, port in (("127.0.0.1", server.port), ("192.0.2.1", 0)):
        with pytest.raises(OSError, match="in use|assign"):
            MetricsServer(host, port, render)


def test_addresses_of_ipv6_are_listened_on() -> None:
    try:
        server = MetricsServer("::1", 0, render)
    except OSError:
        pytest.skip("this machine has no IPv6")
    server.start()
    with contextlib.closing(server), socket.create_connection(("::1", server.port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert PAGE in ended(connection)


def test_close_ends_readers_and_frees_the_port(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
        # So it was accepted.
        assert ask(server)[0] == 200
        server.close()
        assert ended(connection) == b""
    MetricsServer("127.0.0.1", server.port, render).close()


def test_page_that_cannot_be_made_is_logged_and_ends_one_connection(
    server: MetricsServer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(accept: str) -> tuple[bytes, str]:
        raise RuntimeError(accept)

    server.render = broken
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server)
    assert "cannot be made" in caplog.text
    server.render = render
    assert ask(server)[0] == 200


def test_tls_with_a_certificate_that_may_be_replaced(server: MetricsServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=str(authority.ca))

    def serial() -> str:
        with (
            socket.create_connection(("127.0.0.1", server.port), WAIT_S) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            certificate = secure.getpeercert()
            assert certificate
            assert PAGE in ended(secure)
            return str(certificate["serialNumber"])

    seen = []
    for _ in range(2):
        issued = authority.server()
        files = TlsFiles(cert=issued.cert, key=issued.key)
        server.context = server_context(files, ["http/1.1"])
        seen.append(serial())
    assert seen[0] != seen[1]
    # A reader that speaks no TLS, and one that says nothing, hold up nobody.
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(server)
    with socket.create_connection(("127.0.0.1", server.port)):
        assert serial() == seen[1]


def test_mutual_tls_asks_readers_for_a_certificate(server: MetricsServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued, client = authority.server(), authority.client()
    files = TlsFiles(cert=issued.cert, key=issued.key, client_ca=authority.ca)
    server.context = server_context(files, ["http/1.1"])
    trusting = ssl.create_default_context(cafile=str(authority.ca))

    def page() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", server.port), WAIT_S) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            return ended(secure)

    with pytest.raises(ssl.SSLError):
        page()
    trusting.load_cert_chain(client.cert, client.key)
    assert PAGE in page()

"""TLS of the client library: what it agrees to, and what it raises where it cannot."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convserve import Client, ConvserveError, Health, InvalidRequest, ServerUnavailable, TlsFailed
from tests.certificates import Authority, Issued
from tests.clients.conftest import Connect
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer

Serve = Callable[..., ScriptedServer]

DIGIT = np.zeros((28, 28), np.uint8)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Servers with a certificate, which ask clients for theirs if an authority is given."""
    servers: list[ScriptedServer] = []

    def start(mine: Issued, clients: Authority | None = None) -> ScriptedServer:
        tls = grpc.ssl_server_credentials(
            [(mine.key.read_bytes(), mine.cert.read_bytes())],
            clients.ca.read_bytes() if clients else None,
            require_client_auth=clients is not None,
        )
        servers.append(ScriptedServer(tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def files_of(issued: Issued) -> dict[str, Path]:
    return {"tls_cert": issued.cert, "tls_key": issued.key}


def test_all_calls_go_over_tls(connect: Connect, serve: Serve, authority: Authority) -> None:
    client = connect(serve(authority.server()).address, tls_ca=authority.ca)
    assert client.health() is Health.SERVING
    assert client.classify(DIGIT).label
    assert len(client.classify(np.zeros((200, 28, 28), np.uint8))) == 200
    assert [index for index, _ in client.stream([DIGIT, DIGIT])] == [0, 1]
    assert client.models()[0].name == "mnist"


def test_mutual_tls(connect: Connect, serve: Serve, authority: Authority) -> None:
    server = serve(authority.server(), authority)
    client = connect(server.address, tls_ca=authority.ca, **files_of(authority.client()))
    assert client.classify(DIGIT).label


def test_name_of_the_server_may_be_another_than_its_address(
    connect: Connect, serve: Serve, authority: Authority
) -> None:
    server = serve(authority.server("classifier.example"))
    client = connect(server.address, tls_ca=authority.ca, tls_server_name="classifier.example")
    assert client.health() is Health.SERVING


def test_several_addresses_share_a_name(
    connect: Connect, serve: Serve, authority: Authority
) -> None:
    servers = [serve(authority.server("classifier.example")) for _ in range(2)]
    client = connect(
        "ipv4:" + ",".join(server.address for server in servers),
        tls_ca=authority.ca,
        tls_server_name="classifier.example",
    )
    for _ in range(10):
        assert client.classify(DIGIT).label
    assert all(server.requests for server in servers)


def trouble(
    serve: Serve, authority: Authority, tmp_path: Path
) -> dict[str, Callable[[], tuple[ScriptedServer, dict[str, Any]]]]:
    """A server and the options of a client for each reason why they do not agree."""
    other = Authority(tmp_path, "other")
    trusted = {"tls_ca": authority.ca}
    return {
        "expired": lambda: (serve(authority.server(days=-1)), trusted),
        "wrong-host": lambda: (serve(authority.server("other.example")), trusted),
        "unknown-authority": lambda: (serve(authority.server()), {"tls_ca": other.ca}),
        "certificate-required": lambda: (serve(authority.server(), authority), trusted),
        "certificate-refused": lambda: (
            serve(authority.server(), authority),
            trusted | files_of(other.client()),
        ),
        "tls-required": lambda: (serve(authority.server()), {}),
    }


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("expired", "the server's certificate has expired"),
        ("wrong-host", "the server's certificate is not for 127.0.0.1; tls_server_name"),
        ("unknown-authority", "of an authority that is not trusted here; tls_ca"),
        ("certificate-required", "requires a certificate of the client; tls_cert"),
        ("certificate-refused", "does not accept the certificate in "),
        ("tls-required", "the server speaks TLS there; --tls"),
    ],
)
def test_cause_is_named(
    connect: Connect,
    serve: Serve,
    authority: Authority,
    tmp_path: Path,
    reason: str,
    words: str,
) -> None:
    server, options = trouble(serve, authority, tmp_path)[reason]()
    with pytest.raises(TlsFailed) as caught:
        connect(server.address, **options).classify(DIGIT)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"cannot connect to {server.address}: ")
    assert words in str(caught.value)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize("reason", ["expired", "certificate-required"])
def test_cause_is_named_whatever_is_called(
    connect: Connect, serve: Serve, authority: Authority, tmp_path: Path, reason: str
) -> None:
    server, options = trouble(serve, authority, tmp_path)[reason]()
    client = connect(server.address, **options)
    for ask in (
        client.health,
        lambda: client.classify(np.zeros((200, 28, 28), np.uint8)),
        lambda: list(client.stream([DIGIT])),
    ):
        with pytest.raises(TlsFailed) as caught:
            ask()
        assert caught.value.reason == reason


def test_expired_certificate_of_the_client_is_named(
    connect: Connect, serve: Serve, authority: Authority
) -> None:
    server = serve(authority.server(), authority)
    client = connect(server.address, tls_ca=authority.ca, **files_of(authority.client(days=-1)))
    with pytest.raises(TlsFailed, match="has expired,") as caught:
        client.health()
    assert caught.value.reason == "certificate-refused"


def test_server_without_tls_is_named(
    connect: Connect, server: ScriptedServer, authority: Authority
) -> None:
    with pytest.raises(TlsFailed, match="the server speaks no TLS there") as caught:
        connect(tls_ca=authority.ca).health()
    assert caught.value.reason == "no-tls"


def test_authorities_of_the_machine_are_those_of_the_system(
    connect: Connect, serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    server = serve(authority.server())
    with pytest.raises(TlsFailed) as caught:
        connect(server.address, tls=True).health()
    assert caught.value.reason == "unknown-authority"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    assert connect(server.address, tls=True).health() is Health.SERVING


@pytest.fixture
def closer() -> Iterator[tuple[str, threading.Semaphore]]:
    """A server that closes each connection at once: its address, and a count of connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopped, seen = threading.Event(), threading.Semaphore(0)

    def run() -> None:
        while not stopped.is_set():
            connection, _ = listener.accept()
            connection.close()
            seen.release()

    thread = threading.Thread(target=run)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", seen
    stopped.set()
    socket.create_connection(listener.getsockname()).close()
    thread.join(PATIENCE_S)
    listener.close()


@pytest.mark.parametrize("with_tls", [True, False])
def test_connection_that_is_closed_for_another_reason_is_no_matter_of_tls(
    connect: Connect,
    closer: tuple[str, threading.Semaphore],
    authority: Authority,
    with_tls: bool,
) -> None:
    client = connect(closer[0], **({"tls_ca": authority.ca} if with_tls else {}))
    with pytest.raises(ServerUnavailable) as caught:
        client.health()
    assert type(caught.value) is ServerUnavailable


def test_server_that_is_gone_is_not_asked_by_another_connection(
    connect: Connect, serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(authority.server())
    client = connect(server.address, tls_ca=authority.ca)
    assert client.health() is Health.SERVING
    server.stop()
    asked: list[object] = []
    monkeypatch.setattr(socket, "create_connection", lambda *args: asked.append(args))
    for _ in range(3):
        with pytest.raises(ServerUnavailable):
            client.health()
    assert asked == []


# What is given, and what is not


def test_variables_count_where_nothing_is_given(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(authority.server("classifier.example"), authority)
    mine = authority.client()
    for name, value in {
        "CONVSERVE_SERVER": server.address,
        "CONVSERVE_TLS_CA": authority.ca,
        "CONVSERVE_TLS_SERVER_NAME": "classifier.example",
        "CONVSERVE_CLIENT_CERT": mine.cert,
        "CONVSERVE_CLIENT_KEY": mine.key,
    }.items():
        monkeypatch.setenv(name, str(value))
    with Client() as client:
        assert client.health() is Health.SERVING
    with Client(tls=False) as client, pytest.raises(TlsFailed) as caught:
        client.health()
    assert caught.value.reason == "tls-required"


def test_switch_is_a_variable_too(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_TLS", "1")
    with Client(server.address) as client, pytest.raises(TlsFailed):
        client.health()
    monkeypatch.setenv("CONVSERVE_TLS", "0")
    with Client(server.address) as client:
        assert client.health() is Health.SERVING
    monkeypatch.setenv("CONVSERVE_TLS", "perhaps")
    with pytest.raises(InvalidRequest, match=r"^CONVSERVE_TLS: expected 1 or 0, got 'perhaps'$"):
        Client(server.address)


def test_certificate_of_the_server_in_its_environment_is_not_the_clients(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = authority.server()
    monkeypatch.setenv("CONVSERVE_TLS_CERT", str(mine.cert))
    monkeypatch.setenv("CONVSERVE_TLS_KEY", str(mine.key))
    monkeypatch.setenv("CONVSERVE_TLS_CA", str(authority.ca))
    with Client(serve(mine).address) as client:
        assert client._settings.tls is not None
        assert client._settings.tls.cert is None
        assert client.health() is Health.SERVING


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_cert": "c"}, "tls_key: expected a file beside tls_cert, got none"),
        ({"tls_key": "c"}, "tls_cert: expected a file beside tls_key, got none"),
        ({"tls": False, "tls_ca": "c"}, "tls: expected True or None beside tls_ca, got False"),
        ({"tls": "yes"}, "tls: expected True or False, got 'yes'"),
        ({"tls_ca": 7}, "tls_ca: expected a str, got 7"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Client("localhost:1", **given)
    assert str(caught.value) == message


def test_file_that_cannot_be_used_is_named(
    connect: Connect, authority: Authority, tmp_path: Path
) -> None:
    one, other = authority.client(), authority.client()
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not PEM")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    for options, words in (
        (
            {"tls_ca": tmp_path / "gone"},
            "^tls_ca: expected a file that can be read, got .*/gone: No",
        ),
        ({"tls_cert": one.cert, "tls_key": encrypted}, "encrypted.key: the key is encrypted$"),
        ({"tls_ca": wrong}, "^tls_ca: expected certificates in PEM, got .*/wrong.pem: "),
        (
            {"tls_cert": one.cert, "tls_key": other.key},
            "^tls_cert, tls_key: expected a certificate and its private key in PEM, got ",
        ),
    ):
        with pytest.raises(InvalidRequest, match=words):
            connect("localhost:1", **options).health()


def test_error_of_tls_is_one_of_the_library() -> None:
    assert issubclass(TlsFailed, ConvserveError)
    assert not issubclass(TlsFailed, ServerUnavailable)

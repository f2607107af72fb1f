"""Where the environment names a proxy: what goes through it, and what messages say of it."""

import socket
import threading
from collections.abc import Iterator

import pytest

from convserve import Health, ServerUnavailable
from convserve.main import main
from convserve.proxy import proxy_of
from convserve.unreachable import cannot_connect
from tests.clients.conftest import Connect
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer
from tests.clients.test_retries import reserved_address

NOWHERE = "http://user:secret@127.0.0.1:1/"
# Reserved for examples (RFC 5737), and asked for by name of nobody.
ELSEWHERE = "192.0.2.1:50051"


@pytest.fixture(autouse=True)
def _no_proxy_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


class Proxy:
    """Notes the first line of what each connection asks for, and refuses it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._refuse)
        self._thread.start()

    def _refuse(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rwb") as file:
                line = file.readline(65536).decode()
                if not line:
                    return
                self.asked.append(line.rstrip())
                while file.readline(65536).strip():
                    pass
                file.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    def stop(self) -> None:
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(PATIENCE_S)
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    refusing = Proxy()
    yield refusing
    refusing.stop()


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
@pytest.mark.parametrize("form", ["{}", "localhost:{port}", "dns:///localhost:{port}", "ipv4:{}"])
def test_server_on_this_machine_is_reached_without_the_proxy(
    connect: Connect,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    form: str,
) -> None:
    monkeypatch.setenv(variable, NOWHERE)
    port = server.address.rpartition(":")[2]
    address = form.format(server.address, port=port)
    assert connect(address).health() is Health.SERVING


def test_health_check_of_a_container_goes_without_the_proxy(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", NOWHERE)
    port = server.address.rpartition(":")[2]
    assert main(["health", "--server", f"localhost:{port}", "--timeout", "4"]) == 0
    assert capsys.readouterr() == ("SERVING\n", "")


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_proxy_that_refuses_is_named_without_its_credentials(
    connect: Connect, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://user:secret@{proxy.address}")
    with pytest.raises(ServerUnavailable) as caught:
        connect(ELSEWHERE).health()
    assert proxy.asked[0] == f"CONNECT {ELSEWHERE} HTTP/1.1"
    through = f"cannot connect to {ELSEWHERE} through the proxy {proxy.address} ({variable}): "
    assert caught.value.message.startswith(through)
    assert caught.value.message.endswith("; no_proxy=192.0.2.1 connects without it")
    assert "secret" not in caught.value.message


def test_proxy_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with reserved_address() as address:
        monkeypatch.setenv("http_proxy", f"http://{address}")
        assert main(["health", "--server", ELSEWHERE]) == 1
    assert capsys.readouterr().err == (
        f"convserve: cannot connect to {ELSEWHERE} through the proxy {address} (http_proxy):"
        " Connection refused; no_proxy=192.0.2.1 connects without it\n"
    )


# By the rules of gRPC, on which messages about a proxy rely.
ENVIRONMENTS: list[tuple[dict[str, str], str | None]] = [
    ({}, None),
    ({"http_proxy": "http://a:1"}, "a:1 (http_proxy)"),
    ({"http_proxy": "http://a:1/"}, "a:1 (http_proxy)"),
    ({"http_proxy": "http://u:p%40@a:1"}, "a:1 (http_proxy)"),
    ({"http_proxy": "http://u:p@ss@a:1"}, "a:1 (http_proxy)"),
    ({"http_proxy": "https://a:1"}, None),
    ({"http_proxy": "a:1"}, None),
    ({"http_proxy": ""}, None),
    ({"HTTP_PROXY": "http://a:1"}, None),
    ({"https_proxy": "http://b:2", "http_proxy": "http://a:1"}, "b:2 (https_proxy)"),
    ({"grpc_proxy": "", "http_proxy": "http://a:1"}, None),
    ({"http_proxy": "http://a:1", "no_proxy": "other,192.0.2.1"}, None),
    ({"http_proxy": "http://a:1", "no_proxy": " 2.1 "}, None),
    ({"http_proxy": "http://a:1", "no_proxy": "192.0.2.0/24"}, None),
    ({"http_proxy": "http://a:1", "no_proxy": "192.0.3.0/24,x/y"}, "a:1 (http_proxy)"),
    (
        {"http_proxy": "http://a:1", "no_proxy": "192.0.2.1", "no_grpc_proxy": "z"},
        "a:1 (http_proxy)",
    ),
    ({"http_proxy": "http://a:1", "no_proxy": ""}, "a:1 (http_proxy)"),
]


@pytest.mark.parametrize(("environment", "expected"), ENVIRONMENTS)
def test_proxy_is_the_one_that_grpc_uses(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_of(ELSEWHERE)
    assert found is None if expected is None else str(found) == f"the proxy {expected}"
    assert proxy_of("localhost:50051") is None


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("localhost:50051", "convserve-serve --models models"),
        ("127.0.0.1:50052", "convserve-serve --models models --port 50052"),
    ],
)
def test_refused_connection_says_what_to_try(address: str, command: str) -> None:
    assert cannot_connect(address, "Connection refused") == (
        f"cannot connect to {address}: Connection refused; is the server running?"
        f" Start it: {command}"
    )

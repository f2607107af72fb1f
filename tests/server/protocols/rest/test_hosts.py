"""Names by which browsers may call: a page of others cannot make its own name ours."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.server.conftest import Serve
from tests.server.http_client import PNG, HttpClient

Open = Callable[..., HttpClient]

URL = "/v1/models/mnist:classify"


@pytest.fixture
def open_client(serve: Serve) -> Iterator[Open]:
    """Starts a server, and a client of it."""
    clients: list[HttpClient] = []

    def open_(**settings: Any) -> HttpClient:
        clients.append(HttpClient(serve(http=True, **settings).http_port))
        return clients[-1]

    yield open_
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "app.localhost:1",
        "127.0.0.1",
        "127.0.0.1:8080",
        "192.0.2.7:8080",
        "[::1]",
        "[::1]:8080",
        "",
        socket.gethostname(),
        f"{socket.gethostname().upper()}:8080",
    ],
)
def test_name_of_this_machine_is_served(open_client: Open, host: str) -> None:
    assert open_client().ask("POST", URL, PNG, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "localhost:80:80",
        "evil.example#localhost",
        "[evil.example]",
        "127.0.0.1@evil.example",
    ],
)
def test_name_of_another_site_that_leads_here_is_refused(open_client: Open, host: str) -> None:
    client = open_client()
    # What a page of that site sends: to the browser it is of one origin with the server.
    for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
        for verb, target, body in (("POST", URL, PNG), ("GET", "/v1/models", None)):
            reply = client.ask(verb, target, body, headers)
            assert (reply.status, reply.json["reason"]) == (421, "HOST_REFUSED")
            assert reply.json["error"].startswith("host: expected an address, ")
            assert reply.json["error"].endswith(f"or another name of http_hosts, got '{host}'")


def test_names_of_the_settings_are_served(open_client: Open) -> None:
    client = open_client(http_hosts="models.example.org,server")
    for host in ("models.example.org", "Server:8080"):
        assert client.ask("POST", URL, PNG, {"Host": host}).status == 200
    assert client.ask("POST", URL, PNG, {"Host": "example.org"}).status == 421
    assert open_client(http_hosts="*").ask("POST", URL, PNG, {"Host": "any.example"}).status == 200

"""The page for browsers, and which pages of others may call."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from convserve_server.protocols.rest import pages
from convserve_server.protocols.rest.pages import read_pages, web_folder
from tests.server.conftest import Serve
from tests.server.http_client import PNG, HttpClient

Open = Callable[..., HttpClient]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page, and what is beside it and must not be served."""
    folder = tmp_path / "web"
    (folder / "icons").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>page")
    (folder / "app.js").write_text("// " + "x" * 5000)
    (folder / "icons/icon.svg").write_text("<svg/>")
    (folder / "notes.md").write_text("not for browsers")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(pages, "web_folder", lambda: folder)
    return folder


@pytest.fixture
def open_client(serve: Serve, folder: Path) -> Iterator[Open]:
    clients: list[HttpClient] = []

    def open_(**settings: Any) -> HttpClient:
        clients.append(HttpClient(serve(http=True, **settings).http_port))
        return clients[-1]

    yield open_
    for client in clients:
        client.close()


def test_files_have_their_types_and_are_sent_again_only_if_they_changed(open_client: Open) -> None:
    client = open_client()
    for target, type_ in (
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/icons/icon.svg", "image/svg+xml"),
    ):
        reply = client.ask("GET", target)
        assert (reply.status, reply.headers["content-type"]) == (200, type_)
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"].startswith("default-src 'self';")
        tag = reply.headers["etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = client.ask("GET", target, headers={"If-None-Match": known})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert client.ask("GET", target, headers={"If-None-Match": '"other"'}).status == 200
    assert client.ask("HEAD", "/app.js").headers["content-length"] == "5003"
    packed = client.ask("GET", "/app.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) == 5003


def test_nothing_but_the_files_is_served(open_client: Open) -> None:
    client = open_client()
    for target in (
        "/notes.md", "/../secret.txt", "/%2e%2e/secret.txt", "/icons/../../secret.txt",
        "/icons", "/icons/", "//etc/passwd", "/index.html/", "/web/index.html", "/app.js%00",
    ):  # fmt: skip
        reply = client.ask("GET", target)
        assert (reply.status, reply.json["field"]) == (404, "path"), target
    reply = client.ask("POST", "/app.js", b"")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_server_without_a_page_says_what_it_has(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "web_folder", lambda: None)
    with HttpClient(serve(http=True).http_port) as client:
        assert "POST /v1/models/{model}:classify" in client.ask("GET", "/").json["routes"]


def test_page_of_the_checkout_is_found_and_small() -> None:
    found = web_folder()
    if found is None:
        pytest.skip("there is no page")
    files = read_pages(found)
    assert files["/"] is files["/index.html"]
    assert sum(len(each.body) for each in files.values()) < 200_000


ORIGIN = {"Origin": "https://page.example"}
URL = "/v1/models/mnist:classify"


def test_page_of_another_origin_may_not_call_unless_the_settings_say_so(
    open_client: Open,
) -> None:
    client = open_client()
    reply = client.ask("POST", URL, PNG, ORIGIN)
    assert (reply.status, reply.json["reason"]) == (403, "ORIGIN_REFUSED")
    assert "access-control-allow-origin" not in reply.headers
    for origin in ("null", "https://localhost.example", "http://localhos"):
        assert client.ask("POST", URL, PNG, {"Origin": origin}).status == 403
    # The page of the server itself, to which the client says that it is "localhost".
    assert client.ask("POST", URL, PNG, {"Origin": "http://localhost"}).status == 200


@pytest.mark.parametrize("allowed", ["http://a.example,https://page.example", "*"])
def test_page_of_an_allowed_origin_may_call(open_client: Open, allowed: str) -> None:
    client = open_client(http_origins=allowed)
    asked = {"Access-Control-Request-Method": "POST", **ORIGIN}
    for target, methods in ((URL, "OPTIONS, POST"), ("/v1/models", "GET, HEAD, OPTIONS")):
        reply = client.ask("OPTIONS", target, headers=asked)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == "https://page.example"
        assert reply.headers["access-control-allow-methods"] == methods
        assert "connect-protocol-version" in reply.headers["access-control-allow-headers"]
    reply = client.ask("POST", URL, PNG, ORIGIN)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "https://page.example"
    assert "origin" in reply.headers["vary"]
    other = client.ask("POST", URL, PNG, {"Origin": "https://other.example"})
    assert other.status == (200 if allowed == "*" else 403)
    assert client.ask("OPTIONS", URL).headers["allow"] == "OPTIONS, POST"

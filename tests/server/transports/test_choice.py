"""Which front is used, and that connections are renewed where that is asked for."""

import time

import pytest

from convserve_server.host.guards import guards_of, is_guarded
from convserve_server.protocols.convserve_v1.service import CLASSIFY
from convserve_server.settings.settings import make_settings
from convserve_server.transports import choice as front_choice
from convserve_server.transports.choice import choose_front
from tests.server.conftest import WAIT_S, CallWatch, Serve, answers, request_for


def test_auto_is_native_where_it_is_installed() -> None:
    assert choose_front(make_settings(models="m")) == ("native", "the faster one")


def test_auto_is_grpcio_where_native_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_choice, "find_spec", lambda _: None)
    name, why = choose_front(make_settings(models="m"))
    assert name == "grpcio"
    assert "pygrpc-native is not installed" in why


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_front_that_is_set_is_taken(front: str) -> None:
    assert choose_front(make_settings(models="m", front=front)) == (front, "as set")


@pytest.mark.parametrize(
    ("front", "settings", "guarded"),
    [
        ("native", {"host": "0.0.0.0"}, True),
        ("native", {"host": "::"}, True),
        ("native", {"host": "10.0.0.7"}, True),
        ("native", {"host": "server.example"}, True),
        ("native", {"tls_cert": "a.pem", "tls_key": "a.key"}, True),
        ("native", {"max_connection_age_s": 60.0}, True),
        ("native", {}, False),
        ("native", {"host": "127.8.8.8"}, False),
        ("native", {"host": "::1"}, False),
        ("native", {"host": "localhost"}, False),
        ("grpcio", {"host": "0.0.0.0", "tls_cert": "a.pem", "tls_key": "a.key"}, False),
    ],
)
def test_native_front_has_guards_where_it_needs_them(
    front: str, settings: dict[str, str | float], guarded: bool
) -> None:
    given = make_settings(models="m", front=front, workers=3, **settings)
    assert is_guarded(given) is guarded
    assert guards_of(given) == (2 if guarded else 0)


def test_old_connections_are_renewed_and_no_call_fails(serve: Serve) -> None:
    peers: set[str] = set()
    watching = CallWatch(CLASSIFY, lambda call: peers.add(call.caller().peer))
    served = serve("grpcio", interceptors=[watching], max_connection_age_s=0.2)
    end = time.monotonic() + WAIT_S
    while len(peers) < 3:
        assert time.monotonic() < end, peers
        assert answers(served.classify(request_for(7)).result()) == [7]

"""Which front is used, and that connections are renewed where that is asked for."""

import time

import pytest

from convserve_server.protocols.convserve_v1.service import CLASSIFY
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import make_settings
from convserve_server.transports import choice as front_choice
from convserve_server.transports.choice import choose_front, exposure
from tests.server.conftest import WAIT_S, CallWatch, Serve, answers, request_for


def test_auto_is_native_where_it_is_installed() -> None:
    assert choose_front(make_settings(models="m")) == ("native", "the faster one")


def test_auto_is_grpcio_where_native_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_choice, "find_spec", lambda _: None)
    name, why = choose_front(make_settings(models="m"))
    assert name == "grpcio"
    assert "pygrpc-native is not installed" in why


def test_auto_is_grpcio_where_connections_are_to_age() -> None:
    name, why = choose_front(make_settings(models="m", max_connection_age_s=60.0))
    assert name == "grpcio"
    assert "age" in why


def test_auto_is_grpcio_with_tls() -> None:
    name, why = choose_front(make_settings(models="m", tls_cert="c", tls_key="k"))
    assert (name, why) == ("grpcio", "since the native one has no TLS")


def test_native_with_tls_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^front: native has no TLS; use grpcio, or leave out"):
        choose_front(make_settings(models="m", front="native", tls_cert="c", tls_key="k"))


def test_grpcio_that_cannot_ask_for_a_certificate_that_may_be_missing_is_refused() -> None:
    tls = {"tls_cert": "c", "tls_key": "k", "tls_client_ca": "a", "tls_clients": "optional"}
    with pytest.raises(
        SettingError, match=r"^tls_clients: expected required, got optional: grpcio"
    ):
        choose_front(make_settings(models="m", **tls))


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_front_that_is_set_is_taken(front: str) -> None:
    assert choose_front(make_settings(models="m", front=front)) == (front, "as set")


def test_native_that_cannot_age_connections_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^front: native closes no .* \(60 s\); .* grpcio$"):
        choose_front(make_settings(models="m", front="native", max_connection_age_s=60.0))


@pytest.mark.parametrize(
    ("front", "host", "warned"),
    [
        ("native", "0.0.0.0", True),
        ("native", "::", True),
        ("native", "10.0.0.7", True),
        ("native", "server.example", True),
        ("native", "127.0.0.1", False),
        ("native", "127.8.8.8", False),
        ("native", "::1", False),
        ("native", "localhost", False),
        ("grpcio", "0.0.0.0", False),
    ],
)
def test_native_front_that_others_reach_is_warned_of(front: str, host: str, warned: bool) -> None:
    warning = exposure(front, host)
    assert (host in warning and "--front grpcio" in warning) is warned
    assert bool(warning) is warned


def test_old_connections_are_renewed_and_no_call_fails(serve: Serve) -> None:
    peers: set[str] = set()
    watching = CallWatch(CLASSIFY, lambda call: peers.add(call.caller().peer))
    served = serve("grpcio", interceptors=[watching], max_connection_age_s=0.2)
    end = time.monotonic() + WAIT_S
    while len(peers) < 3:
        assert time.monotonic() < end, peers
        assert answers(served.classify(request_for(7)).result()) == [7]

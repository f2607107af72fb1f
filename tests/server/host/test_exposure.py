"""Ports that other machines reach need TLS, keys, or a word that neither is wanted."""

import socket
from typing import Any

import pytest

from convserve_server.host.exposure import check_exposure, is_reached_by_others
from convserve_server.process.reload import merged
from convserve_server.settings.kinds import Value
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import make_settings

#: Of the machine that these tests pretend to run on; ".test" is nobody's (RFC 6761).
NAMES = {
    "here.test": ["127.0.0.1", "::1"],
    "wide.test": ["192.0.2.7"],
    "both.test": ["127.0.0.1", "192.0.2.7"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def found(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host.endswith(".test") and host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            one
            for address in NAMES.get(host, [host])
            for one in real(address, *arguments, **options)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("127.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("localhost", False),
        ("here.test", False),
        ("0.0.0.0", True),
        ("0", True),
        ("::", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.2.7", True),
        ("wide.test", True),
        ("both.test", True),
        # Nobody can say what it will be when the port is opened.
        ("nowhere.test", True),
        ("", True),
    ],
)
def test_address_that_other_machines_reach_is_known(host: str, reached: bool) -> None:
    assert is_reached_by_others(host) is reached


def test_open_port_without_protection_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(SettingError) as caught:
        check_exposure(make_settings(models="m", host="0.0.0.0"))
    assert str(caught.value) == (
        "host: expected TLS (tls_cert), keys (keys) or --insecure for an address that other "
        "machines reach, got 0.0.0.0"
    )


@pytest.mark.parametrize(
    "protection", [{"tls_cert": "c.pem", "tls_key": "k.pem"}, {"keys": "keys.toml"}]
)
def test_open_port_with_tls_or_keys_needs_no_word(protection: dict[str, str]) -> None:
    assert check_exposure(make_settings(models="m", host="0.0.0.0", **protection)) == []


def test_open_port_that_is_wanted_is_warned_of() -> None:
    (warning,) = check_exposure(make_settings(models="m", host="0.0.0.0", insecure=True))
    assert warning == (
        "insecure: host 0.0.0.0 is reached by other machines, without TLS and without keys: "
        "whoever reaches the port may use it"
    )
    assert check_exposure(make_settings(models="m", insecure=True)) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_metrics_port_is_one_of_them(host: str) -> None:
    # Keys are those of callers: they open no metrics.
    settings = make_settings(models="m", metrics_host=host, keys="keys.toml")
    assert check_exposure(settings) == []
    with pytest.raises(SettingError) as caught:
        check_exposure(settings.replace(metrics_port=9100))
    assert str(caught.value) == (
        "metrics_host: expected TLS (tls_cert), a key (metrics_key_file) or --insecure for an "
        f"address that other machines reach, got {host}"
    )
    for protection in ({"metrics_key_file": "k"}, {"tls_cert": "c.pem", "tls_key": "k.pem"}):
        assert check_exposure(settings.replace(metrics_port=9100, **protection)) == []
    (warning,) = check_exposure(settings.replace(metrics_port=9100, insecure=True))
    assert warning.startswith(f"insecure: metrics_host {host} ")


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "127.0.0.1"},
        {"insecure": False},
        {"keys": ""},
        {"tls_cert": "", "tls_key": ""},
        {"metrics_port": 9101},
        {"metrics_host": "127.0.0.1"},
        {"metrics_key_file": ""},
    ],
)
def test_what_protects_an_open_port_stays_until_the_next_start(changed: dict[str, Value]) -> None:
    before = make_settings(
        models="m", host="0.0.0.0", insecure=True, keys="k", tls_cert="c", tls_key="y",
        metrics_port=9100, metrics_host="0.0.0.0", metrics_key_file="m",
    )  # fmt: skip
    after = before.replace(**changed)
    assert after != before
    assert merged(before, after) == before

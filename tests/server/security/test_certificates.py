"""What the log reports of a server's certificate, at its start and while it runs."""

import datetime
import logging
from pathlib import Path

import pytest

from convserve_server.security.certificates import (
    AGAIN_S,
    CertificateWatch,
    validity_of,
    warnings_about,
)
from convserve_server.security.tls import TlsFiles
from tests.certificates import Authority, Issued


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def files_of(issued: Issued) -> TlsFiles:
    return TlsFiles(cert=issued.cert, key=issued.key)


@pytest.mark.parametrize("days", [-1.0, 1.0, 400.0])
def test_validity_is_found_also_of_an_expired_certificate(tmp_path: Path, days: float) -> None:
    found = validity_of(files_of(Authority(tmp_path).server(days=days)))
    assert abs(found.end - now() - datetime.timedelta(days=days)) < datetime.timedelta(minutes=1)
    assert found.begin < now()


@pytest.mark.parametrize(
    ("days", "words"),
    [(-1.0, "has expired on"), (13.5, "expires in 13.5 days, on"), (15.0, None)],
)
def test_certificate_that_ends_soon_is_warned_of(
    tmp_path: Path, days: float, words: str | None
) -> None:
    issued = Authority(tmp_path).server(days=days)
    found = warnings_about(files_of(issued), now())
    assert [words is not None and words in line for line in found] == [True] * (words is not None)
    assert all(line.startswith(f"tls_cert: {issued.cert}") for line in found)


def test_certificate_of_tomorrow_is_warned_of(tmp_path: Path) -> None:
    issued = Authority(tmp_path).server(days=100)
    (line,) = warnings_about(files_of(issued), now() - datetime.timedelta(days=11))
    assert "is not valid before" in line


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_key_that_everybody_can_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    issued = Authority(tmp_path).server(days=100)
    issued.key.chmod(mode)
    found = warnings_about(files_of(issued), now())
    assert [f"(mode {mode:o})" in line for line in found] == [True] * warned


def test_certificate_that_no_client_accepts_is_an_error(tmp_path: Path) -> None:
    # For clients alone: RFC 5280, section 4.2.1.12.
    issued = Authority(tmp_path).issue_uri("spiffe://a/b", "localhost", servers=False)
    with pytest.raises(ValueError, match=f"^tls_cert: expected .*, got {issued.cert}: "):
        validity_of(files_of(issued))


def test_watch_warns_when_the_files_change_and_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    authority, now = Authority(tmp_path), [0.0]
    issued = authority.server(days=100)
    watch = CertificateWatch(files_of(issued), lambda: now[0])
    watch.look()
    assert caplog.messages == []
    issued.replace(authority.server(days=2))
    for _ in range(2):
        watch.look()
    assert len(caplog.messages) == 1
    now[0] += AGAIN_S
    for _ in range(2):
        watch.look()
    assert len(caplog.messages) == 2
    assert all("expires in 2.0 days" in line for line in caplog.messages)


def test_watch_looks_on_its_own_and_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = CertificateWatch(files_of(Authority(tmp_path).server()), every_s=0.001)
    watch.start()
    watch.close()
    watch.close()

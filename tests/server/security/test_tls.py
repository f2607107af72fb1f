"""The context of a server, and whom a certificate names."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from convserve_server.security.tls import TlsFiles, identity_of, server_context
from tests.certificates import Authority


@pytest.mark.parametrize(
    ("certificate", "identity"),
    [
        (None, ""),
        ({}, ""),
        ({"subject": ((("organizationName", "o"),), (("commonName", "shop"),))}, "shop"),
        (
            {"subjectAltName": (("IP Address", "10.0.0.1"),), "subject": ((("commonName", "a"),),)},
            "a",
        ),
        (
            {"subjectAltName": (("email", "a@b"), ("DNS", "a.b"), ("URI", "spiffe://a"))},
            "spiffe://a",
        ),
        ({"subjectAltName": (("email", "a@b"), ("DNS", "a.b"), ("DNS", "c.d"))}, "a.b"),
        ({"subjectAltName": (("email", "a@b"),)}, "a@b"),
    ],
)
def test_identity_is_the_first_name_of_the_best_kind(
    certificate: dict[str, Any] | None, identity: str
) -> None:
    assert identity_of(certificate) == identity


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.server(), authority.server()
    with pytest.raises(ValueError, match=rf"^tls_cert, tls_key: expected .*, got {one.cert} and"):
        server_context(TlsFiles(cert=one.cert, key=other.key), ())
    other.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(ValueError, match=r": the key is encrypted$"):
        server_context(TlsFiles(cert=one.cert, key=other.key), ())
    other.cert.write_text("nothing")
    with pytest.raises(ValueError, match=rf"^tls_client_ca: expected .*, got {other.cert}: "):
        server_context(TlsFiles(cert=one.cert, key=one.key, client_ca=other.cert), ())
    with pytest.raises(OSError, match="gone"):
        server_context(TlsFiles(cert=tmp_path / "gone", key=one.key), ())


@pytest.mark.parametrize(
    ("clients", "mode"), [("required", ssl.CERT_REQUIRED), ("optional", ssl.CERT_OPTIONAL)]
)
def test_clients_must_or_may_show_a_certificate(
    tmp_path: Path, clients: Any, mode: ssl.VerifyMode
) -> None:
    authority = Authority(tmp_path)
    mine = authority.server()
    files = TlsFiles(cert=mine.cert, key=mine.key, client_ca=authority.ca, clients=clients)
    assert server_context(files, ("h2",)).verify_mode == mode

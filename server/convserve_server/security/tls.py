"""TLS of a server: its certificate, the certificates of its clients, and who they name.

Sources: RFC 8446 (TLS 1.3), RFC 5280 section 4.2.1.6 (subject alternative names), RFC 7301 (ALPN).
"""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """What TLS of a server is made of.

    Attributes:
        cert: File with the server's certificate, and those between it and its authority (PEM).
        key: File with its private key (PEM), not encrypted.
        client_ca: File with the authorities of clients (PEM); None: clients show no certificate.
        clients: Whether a client must show a certificate, or may.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    clients: Literal["required", "optional"] = "required"

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, to be watched for changes."""
        return (self.cert, self.key, *([self.client_ca] if self.client_ca else []))


def server_context(files: TlsFiles, alpn: Sequence[str]) -> ssl.SSLContext:
    """Returns the context of a server, for TLS 1.2 and 1.3.

    To change its certificate make a new context: the authorities of an old one cannot be removed.

    Args:
        files: That it is made of.
        alpn: Protocols to offer, such as "h2" and "http/1.1".

    Raises:
        ValueError: A file is not what it should be; names the file.
        OSError: One cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    for path in files.paths:
        path.read_bytes()  # OpenSSL's errors name no file.
    try:
        # Without a password an encrypted key would ask the terminal.
        context.load_cert_chain(files.cert, files.key, password=lambda: b"")
    except ssl.SSLError as error:
        encrypted = b"ENCRYPTED" in files.key.read_bytes()
        why = "the key is encrypted" if encrypted else error.reason or "not PEM"
        raise ValueError(
            f"tls_cert, tls_key: expected a certificate and its private key in PEM, got "
            f"{files.cert} and {files.key}: {why}"
        ) from error
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise ValueError(
                f"tls_client_ca: expected certificates in PEM, got {files.client_ca}: "
                f"{error.reason or 'not PEM'}"
            ) from error
        required = files.clients == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def identity_of(certificate: Mapping[str, Any] | None) -> str:
    """Returns whom a verified certificate names.

    That is its first URI, else DNS name, else email address, else its common name.

    Args:
        certificate: As SSLSocket.getpeercert() gives it; None or empty if there is none.
    """
    if not certificate:
        return ""
    names: list[tuple[str, str]] = list(certificate.get("subjectAltName", ()))
    for kind in ("URI", "DNS", "email"):
        for found, name in names:
            if found == kind:
                return name
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""

"""TLS of a client: which authorities it trusts, and what it shows of itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convserve.arguments import switch_of, validate_flag, validate_text
from convserve.errors import InvalidRequest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    import grpc

TLS_VARIABLE = "CONVSERVE_TLS"
CA_VARIABLE = "CONVSERVE_TLS_CA"
# Not CONVSERVE_TLS_CERT, which is the server's: a health check runs in the server's environment.
CERT_VARIABLE = "CONVSERVE_CLIENT_CERT"
KEY_VARIABLE = "CONVSERVE_CLIENT_KEY"
SERVER_NAME_VARIABLE = "CONVSERVE_TLS_SERVER_NAME"

# Where systems keep all authorities in one file, if OpenSSL does not know.
_SYSTEM_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


@dataclass(frozen=True, slots=True)
class Tls:
    """How a client speaks TLS.

    Attributes:
        ca: File with the authorities that sign servers' certificates (PEM); None: the system's.
        cert: File with the client's own certificate (PEM); None: it has none.
        key: File with its private key (PEM), not encrypted.
        server_name: That the server's certificate must have; None: the host of the address.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Checks that a certificate has its key.

        Raises:
            InvalidRequest: One of them is there alone.
        """
        if (self.cert is None) != (self.key is None):
            missing, other = ("tls_key", "tls_cert") if self.cert else ("tls_cert", "tls_key")
            raise InvalidRequest.expected(missing, f"a file beside {other}", "none")

    def context(self, alpn: Sequence[str] = ("h2",)) -> ssl.SSLContext:
        """Returns a context for Python's own sockets.

        Args:
            alpn: Protocols to offer.

        Raises:
            InvalidRequest: A file cannot be read, or is not what it should be.
        """
        # Here, since a client without TLS has no use for it.
        import ssl

        self._read()
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            why = f"{self.ca}: {error.reason or 'not PEM'}"
            raise InvalidRequest.expected("tls_ca", "certificates in PEM", why) from error
        context.set_alpn_protocols(list(alpn))
        if self.cert is not None:
            try:
                # Without a password an encrypted key would ask the terminal.
                context.load_cert_chain(self.cert, self.key, password=lambda: b"")
            except ssl.SSLError as error:
                encrypted = b"ENCRYPTED" in (self._read()[2] or b"")
                why = "the key is encrypted" if encrypted else error.reason or "not PEM"
                why = f"{self.cert} and {self.key}: {why}"
                expected = "a certificate and its private key in PEM"
                raise InvalidRequest.expected("tls_cert, tls_key", expected, why) from error
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials of a channel.

        Raises:
            InvalidRequest: As context.
        """
        import grpc

        self.context()  # gRPC does not say what is wrong with a file.
        ca, cert, key = self._read()
        return grpc.ssl_channel_credentials(ca or _system_authorities(), key, cert)

    def options(self) -> list[tuple[str, str | int]]:
        """Returns the options of a channel."""
        if self.server_name is None:
            return []
        return [("grpc.ssl_target_name_override", self.server_name)]

    def _read(self) -> list[bytes | None]:
        """Returns what is in the files."""
        files = (("tls_ca", self.ca), ("tls_cert", self.cert), ("tls_key", self.key))
        return [None if path is None else _content(name, path) for name, path in files]


def choose_tls(
    tls: object = None,
    ca: object = None,
    cert: object = None,
    key: object = None,
    server_name: object = None,
) -> Tls | None:
    """Returns how a client speaks TLS; None: it does not.

    What is not given comes from the variables. TLS is spoken where it is asked for, and where an
    authority or a certificate is named.

    Args:
        tls: True or False; None: see above.
        ca: As for Tls.
        cert: As for Tls.
        key: As for Tls.
        server_name: As for Tls.

    Raises:
        InvalidRequest: An argument or a variable is of another kind, or they do not go together.
    """
    wanted = switch_of(TLS_VARIABLE) if tls is None else validate_flag("tls", tls)
    given = {"tls_ca": ca, "tls_cert": cert, "tls_key": key, "tls_server_name": server_name}
    texts = {
        name: validate_text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)
        for name, value in given.items()
        if value is not None
    }
    if wanted is False:
        if tls is not None and texts:
            raise InvalidRequest.expected("tls", f"True or None beside {', '.join(texts)}", "False")
        return None
    if "tls_cert" not in texts and "tls_key" not in texts:
        texts |= _set({"tls_cert": CERT_VARIABLE, "tls_key": KEY_VARIABLE})
    texts = _set({"tls_ca": CA_VARIABLE, "tls_server_name": SERVER_NAME_VARIABLE}) | texts
    if not wanted and not texts.keys() & {"tls_ca", "tls_cert", "tls_key"}:
        return None
    return Tls(*(texts.get(name) or None for name in given))


def _set(variables: dict[str, str]) -> dict[str, str]:
    found = {name: os.environ.get(variable) for name, variable in variables.items()}
    return {name: value for name, value in found.items() if value}


def _content(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        why = f"{path}: {getattr(error, 'strerror', None) or error}"
        raise InvalidRequest.expected(name, "a file that can be read", why) from error


def _system_authorities() -> bytes | None:
    """Returns the authorities that this machine trusts; None leaves it to those of gRPC itself.

    gRPC brings a list of its own, which does not know what an administrator has added here.
    """
    import ssl

    if "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in os.environ:
        return None
    for path in (ssl.get_default_verify_paths().cafile, *_SYSTEM_FILES):
        if path and os.path.exists(path):
            return _content("tls_ca", path)
    return None

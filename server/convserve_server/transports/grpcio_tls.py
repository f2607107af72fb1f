"""TLS of grpcio's server: certificates that are exchanged while it serves, and who calls."""

from typing import Any

import grpc

from convserve_server.security.file_watch import FileWatch
from convserve_server.security.tls import TlsFiles, server_context

#: What grpc has of a verified certificate, in the order of security.tls.identity_of.
_NAMES = ("peer_uri", "peer_dns", "peer_email", "x509_common_name")


class GrpcioTls:
    """The certificate of a server, read again when it changes; for connections made from then on.

    Args:
        files: that it is made of.

    Raises:
        ValueError, OSError: see security.tls.server_context.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._watch = FileWatch(files.paths, self._load)
        self._load()
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration, self._changed, files.client_ca is not None
        )
        self._watch.start()

    def close(self) -> None:
        """Reads no more."""
        self._watch.close()

    def _load(self) -> None:
        contents = self._read()
        # grpc writes nothing of files that it cannot use, it only refuses connections.
        server_context(self._files, ())
        if self._read() != contents:
            raise ValueError("they change while they are read; looking again")
        cert, key, *authorities = contents
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(key, cert)], authorities[0] if authorities else None
        )
        self._is_new = True

    def _read(self) -> list[bytes]:
        return [path.read_bytes() for path in self._files.paths]

    def _changed(self) -> Any:
        """Returns the certificate for a new connection; None for the one of the last."""
        if not self._is_new:
            return None
        self._is_new = False
        return self._configuration


def identity_in(context: Any) -> str:
    """Returns whom the certificate of a call's client names; empty without one.

    Args:
        context: of grpcio, of a connection with TLS.
    """
    found = context.auth_context()
    for name in _NAMES:
        if values := found.get(name):
            return str(values[0].decode(errors="replace"))
    return ""

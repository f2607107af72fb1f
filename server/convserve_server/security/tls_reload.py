"""A context of TLS that is made anew when its files change, for connections from then on."""

import ssl
from collections.abc import Sequence

from convserve_server.security.file_watch import FileWatch
from convserve_server.security.tls import TlsFiles, server_context


class ReloadedContext:
    """What asyncio is given to serve TLS with files that are renewed.

    A context cannot be changed as a whole: authorities that it trusts stay trusted. So each
    handshake is given the newest one, as soon as its first message is read.

    Args:
        files: That it is made of.
        alpn: Protocols to offer; see server_context.

    Attributes:
        context: For asyncio, the same for as long as it serves.

    Raises:
        ValueError, OSError: See server_context.
    """

    def __init__(self, files: TlsFiles, alpn: Sequence[str]) -> None:
        self._files = files
        self._alpn = alpn
        self._watch = FileWatch(files.paths, self._load)
        self.context = self._newest = server_context(files, alpn)
        self.context.sni_callback = self._exchange

    def start(self) -> None:
        """Looks at the files from now on."""
        self._watch.start()

    def close(self) -> None:
        """Looks no more."""
        self._watch.close()

    def _load(self) -> None:
        self._newest = server_context(self._files, self._alpn)

    def _exchange(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, first: ssl.SSLContext
    ) -> None:
        """Gives a connection the newest context; OpenSSL asks for each, also without a name."""
        del name, first
        if connection.context is not self._newest:
            connection.context = self._newest

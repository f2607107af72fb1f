"""Reads a metrics page over HTTP."""

from __future__ import annotations

import http.client
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from convserve.command.missing_input import MissingInput
from convserve.command.top.page import Page
from convserve.errors import (
    ConvserveError,
    InvalidRequest,
    ServerUnavailable,
    Unauthenticated,
    UnexpectedReply,
)
from convserve.tls import Tls

# 512 model versions have a page of 8 MiB.
_MAX_BYTES = 64 * 2**20
_PIECE_BYTES = 2**18


class Source:
    """A metrics page.

    A new connection for each reading, without a proxy: the page is one of machines that are near.
    """

    def __init__(
        self, url: str, key_file: str | None, timeout_s: float, tls: Tls | None = None
    ) -> None:
        """Reads nothing yet.

        Args:
            url: Of the page, http or https.
            key_file: File with the key to send, read each time; None: none is sent.
            timeout_s: Longest wait for the whole page, in seconds.
            tls: How to speak TLS to a page of https; its files are read each time.
        """
        self.url = url
        self._key_file = key_file
        self._timeout_s = timeout_s
        parts = urlsplit(url)
        self._tls = tls
        self._host, self._port = str(parts.hostname), parts.port
        self._target = parts.path + (f"?{parts.query}" if parts.query else "")

    def read(self) -> Page:
        """Returns the page as it is now.

        Raises:
            MissingInput: The key's file is not there.
            ServerUnavailable: Nobody answers, or not in time.
            Unauthenticated: The page needs a key, or another one.
            ConvserveError: What came is not a metrics page of Convserve.
        """
        headers = {"Accept": "text/plain", **self._authorization()}
        try:
            text = self._fetch(headers)
            return Page.parse(text, time.monotonic())
        except ConvserveError as error:
            error.message = f"metrics page {self.url}: {error.message}"
            error.args = (error.message,)
            raise

    def _authorization(self) -> dict[str, str]:
        if self._key_file is None:
            return {}
        try:
            key = Path(self._key_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise MissingInput(f"--key-file: cannot read {self._key_file}: {why}") from error
        if not (key.isascii() and key.isprintable() and key) or " " in key:
            # What is in it is a secret, or might be.
            raise InvalidRequest.of("--key-file", "expected a key on one line, got something else")
        return {"Authorization": f"Bearer {key}"}

    def _fetch(self, headers: dict[str, str]) -> str:
        end_s = time.monotonic() + self._timeout_s
        connection = self._connection()
        try:
            connection.request("GET", self._target, headers=headers)
            with connection.getresponse() as response:
                _check_status(response)
                return self._body(response, end_s)
        except TimeoutError as error:
            raise ServerUnavailable(f"no answer within {self._timeout_s:g} s") from error
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise ServerUnavailable(f"TLS: {why}") from error
        except http.client.RemoteDisconnected as error:
            more = "" if self._tls else "; a page over TLS needs https"
            raise ServerUnavailable(f"the connection ended without an answer{more}") from error
        except OSError as error:
            why = f"{error.strerror or error}; is the server running with --metrics-port?"
            raise ServerUnavailable(why) from error
        except http.client.HTTPException as error:
            raise UnexpectedReply(f"no answer of HTTP: {type(error).__name__}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return _TlsConnection(self._host, self._port, self._tls, self._timeout_s)

    def _body(self, response: http.client.HTTPResponse, end_s: float) -> str:
        """Returns the body; the timeout of the connection is for each piece of it alone."""
        pieces: list[bytes] = []
        size = 0
        while piece := response.read1(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_BYTES:
                raise UnexpectedReply(f"expected at most {_MAX_BYTES >> 20} MiB, got more")
            if time.monotonic() > end_s:
                raise TimeoutError
        if response.length:
            raise UnexpectedReply("it ends too early")
        return b"".join(pieces).decode(errors="replace")


class _TlsConnection(http.client.HTTPConnection):
    """A connection over TLS; http.client's own looks only for the host's name in a certificate."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, host: str, port: int | None, tls: Tls, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._name = tls.server_name or host
        self._context = tls.context(["http/1.1"])

    def connect(self) -> None:
        """See HTTPConnection."""
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)


def _check_status(response: http.client.HTTPResponse) -> None:
    if response.status in (401, 403):
        raise Unauthenticated("it needs the key that the server has in --metrics-key-file")
    if response.status != 200:
        # Redirections too: the key is for the server that was named.
        raise UnexpectedReply(f"expected status 200, got {response.status} {response.reason}")

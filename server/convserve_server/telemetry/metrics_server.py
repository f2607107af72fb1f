"""The port of metrics: HTTP of the standard library, made safe for whoever reaches it.

One request for each connection. A connection has so many seconds for all that it does, and there
are so many at a time; whatever a reader leaves undone, others and the server go on.
"""

import contextlib
import hmac
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any

from convserve_server.security.secrets import Secret

log = logging.getLogger(__name__)

#: Of one connection, from its beginning to its end, s.
TIME_S = 10.0
#: At a time; others are closed at once.
CONNECTIONS = 16
#: How often to look for connections whose time is over, s.
_LOOK_S = 0.5
#: Until the thread of the port has ended, s.
_CLOSE_S = 2.0
#: Longest line with the path, bytes.
_MOST_LINE = 4096

_TEXT = "text/plain; charset=utf-8"

#: Returns the page and its type for the header field Accept.
Render = Callable[[str], tuple[bytes, str]]


class MetricsServer:
    """Serves a page at /metrics from close after it is made until close().

    Args:
        host: address to listen on.
        port: to listen on; 0 for a free one.
        render: makes the page, on a thread of the connection.

    Attributes:
        key: what readers must send, as a bearer token; None: nothing. May be replaced at any time.
        context: for TLS; None: without. May be replaced at any time.

    Raises:
        OSError: the port is in use, or the address is not ours.
    """

    def __init__(self, host: str, port: int, render: Render) -> None:
        self.key: Secret | None = None
        self.context: ssl.SSLContext | None = None
        self.render = render
        self._server = _Server(host, port, self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_S,), name="metrics", daemon=True
        )

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def close(self) -> None:
        """Closes the port and all connections."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_CLOSE_S)
        self._server.server_close()
        self._server.end_all()


class _Server(TCPServer):
    """Accepts connections, and ends those whose time is over."""

    allow_reuse_address = True
    request_queue_size = CONNECTIONS

    def __init__(self, host: str, port: int, page: MetricsServer) -> None:
        self.page = page
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        # Open connections, and when the time of each is over.
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)  # type: ignore[arg-type]  # of IPv6 it is longer

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers on a thread of its own, unless there are too many."""
        with self._lock:
            full = len(self._open) >= CONNECTIONS
            if not full:
                self._open[request] = time.monotonic() + TIME_S
        if full:
            self.shutdown_request(request)
            return
        threading.Thread(
            target=self._answer, args=(request, client_address), name="metrics reader", daemon=True
        ).start()

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        secure = request
        try:
            request.settimeout(TIME_S)
            if (context := self.page.context) is not None:
                secure = context.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
                with self._lock:
                    self._open[secure] = self._open.pop(request)
                secure.do_handshake()
            self.finish_request(secure, client_address)
        except OSError:
            pass  # The reader has gone, speaks no TLS, or its time was over.
        except Exception:
            log.exception("a page of metrics cannot be made")
        finally:
            with self._lock:
                self._open.pop(request, None)
                self._open.pop(secure, None)
            self.shutdown_request(secure)

    def service_actions(self) -> None:
        """Ends the connections whose time is over; called again and again."""
        now = time.monotonic()
        with self._lock:
            late = [one for one, until in self._open.items() if until <= now]
        self._end(late)

    def end_all(self) -> None:
        """Ends all connections."""
        with self._lock:
            there = list(self._open)
        self._end(there)

    def _end(self, connections: list[socket.socket]) -> None:
        for one in connections:
            # Not close(): its thread reads or writes, and ends by this.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs what went wrong with accepting a connection."""
        log.exception("a connection for metrics cannot be accepted")


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    server_version = "convserve"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = _TEXT

    def handle(self) -> None:
        """Reads the request, and answers it."""
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(_MOST_LINE + 1)
        if len(self.raw_requestline) > _MOST_LINE:
            self.requestline = self.request_version = self.command = ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self.raw_requestline and self.parse_request():
            self._answer()

    def _answer(self) -> None:
        if not self._may_read():
            self._refuse(HTTPStatus.UNAUTHORIZED, "WWW-Authenticate", "Bearer")
        elif self.command not in ("GET", "HEAD"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Allow", "GET, HEAD")
        elif self.path.partition("?")[0] != "/metrics":
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            body, content_type = self.server.page.render(self.headers.get("Accept", ""))
            self._send(HTTPStatus.OK, body, content_type)

    def _may_read(self) -> bool:
        """Returns whether the request has the key, in a time that says nothing of the key."""
        key = self.server.page.key
        if key is None:
            return True
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        # As http.server has decoded it.
        same = hmac.compare_digest(given.strip().encode("latin-1"), key.reveal().encode())
        return same and kind.lower() == "bearer"

    def _refuse(self, status: HTTPStatus, *header: str) -> None:
        body = f"{status.value} {status.phrase}\n".encode()
        self._send(status, body, _TEXT, *header)

    def _send(self, status: HTTPStatus, body: bytes, content_type: str, *header: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if header:
            self.send_header(*header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
        """Logs nothing: readers come every few seconds."""

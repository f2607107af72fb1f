"""One connection of HTTP/1.1: from bytes to requests, one after the other, and answers to bytes.

What a client sends is bounded before it is kept: the head of a request, its body, how many requests
wait behind one that is not answered, and the time for each. A client that goes away is seen at
once.

Source: RFC 9112 (messages, persistence, pipelining), RFC 9110 (Expect, Content-Length).
"""

import asyncio
import http
import math
import time
from collections import deque
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from convserve_server.protocols.rest.encodings import too_large
from convserve_server.protocols.rest.errors import fault_answer, problem_answer
from convserve_server.protocols.rest.messages import HttpAnswer, HttpRequest, Problem
from convserve_server.security.tls import identity_of
from convserve_server.transports.ages import new_age_s

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Target and header fields of a request, all together, bytes; as of gRPC's calls.
MAX_HEAD = 2**14
#: Header fields of a request.
_MAX_FIELDS = 100
#: Requests that wait behind one that is not answered; nobody sends more by chance.
_MAX_WAITING = 64
#: A body that has no more may always be received, bytes.
SMALL_BODY = 2**16
#: Each part costs as much as its first thousand bytes. So many may be of any size, others have to
#: have so many bytes on average.
_MAX_PARTS, _PART_BYTES = 1024, 64
#: From the first byte of a request to the end of its head, s.
HEAD_S = 20.0
#: For a body, or for reading an answer: so long, and a second more for so many bytes.
BODY_S, BYTES_PER_S = 20.0, 2**14
#: After an answer to a request of which not all was read: until a client that still sends has read
#: it. Closed at once, the connection would be reset, and the answer lost.
LINGER_S = 2.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Owner(Protocol):
    """What has all connections.

    Attributes:
        max_message_bytes: of a body.
        max_body_bytes: of all bodies together that are being received.
        body_bytes: that they have now.
        keepalive_s: silence after which a connection is closed.
        max_connection_age_s: at which it is closed once its request is answered; 0: never.
        draining: whether connections should end.
    """

    max_message_bytes: int
    max_body_bytes: int
    body_bytes: int
    keepalive_s: float
    max_connection_age_s: float

    @property
    def draining(self) -> bool:
        """See above."""

    def connected(self, connection: "HttpConnection") -> bool:
        """Notes a connection; returns whether there may be one more."""

    def disconnected(self, connection: "HttpConnection") -> None:
        """Notes that a connection is closed."""

    def admits(self, request: HttpRequest) -> bool:
        """Returns whether the body of a request may come; else begin() has it refused."""

    def begin(self, connection: "HttpConnection", request: HttpRequest) -> None:
        """Has a request answered by connection.answer(), now or later."""

    def abandoned(self, connection: "HttpConnection") -> None:
        """Ends the work on the request that is being answered: its client has gone away."""


class _Received:
    """A request that is complete, or the error in place of one; and what becomes of the connection.

    Attributes:
        request: that came; None if it is wrong.
        problem: the answer to one that is wrong.
        keep: whether more may come.
        version: of HTTP that the client speaks.
        size: of its body, bytes.
        whole: whether all of it has come.
    """

    __slots__ = ("keep", "problem", "request", "size", "version", "whole")

    def __init__(
        self,
        request: HttpRequest | None,
        problem: HttpAnswer | None,
        keep: bool,
        version: str,
        size: int,
        whole: bool,
    ) -> None:
        self.request = request
        self.problem = problem
        self.keep = keep
        self.version = version
        self.size = size
        self.whole = whole


class HttpConnection(asyncio.Protocol):
    """See above. All methods run on the event loop of its owner.

    Args:
        owner: of all connections.

    Attributes:
        peer: address of the client, as "ipv4:127.0.0.1:51234".
        identity: whom its certificate names; see Caller.
        due: time.monotonic() at which overdue() is to be called; infinity while the server works.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        # What comes behind a request that asks to close is ignored here, see _deaf.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: asyncio.Transport
        self.peer = ""
        self.identity = ""
        self.due = math.inf
        self._made = time.monotonic()
        self._oldest_s = new_age_s(owner.max_connection_age_s)
        # The request that is being received.
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._began = 0.0
        self._in_head = False
        self._in_body = False
        self._request: HttpRequest | None = None
        self._keep = True
        self._version = "1.1"
        self._parts: list[bytes] = []
        self._size = 0
        self._continue = False
        # Requests that wait, and the one that is being answered.
        self._waiting: deque[_Received] = deque()
        self._current: _Received | None = None
        self._advancing = False
        # Whatever else comes is ignored.
        self._deaf = False
        # The last answer is written.
        self._ended = False
        self._blocked = False
        self._paused = False

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self.peer = _peer(transport.get_extra_info("peername"))
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.identity = identity_of(tls.getpeercert())
        self.due = self._made + HEAD_S
        if not self._owner.connected(self):
            self._refuse(
                Problem(
                    503, "TOO_MANY_CONNECTIONS",
                    "connections: expected fewer, got as many as http_max_connections allows",
                    retry_after_s=1.0,
                )
            )  # fmt: skip

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        self._owner.body_bytes -= self._size + sum(each.size for each in self._waiting)
        self._size = 0
        self._waiting.clear()
        self._parts.clear()
        self._deaf = self._ended = True
        self.due = math.inf
        if self._current is not None:
            self._current = None
            self._owner.abandoned(self)
        self._owner.disconnected(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._deaf:
            return
        if not self._in_head and not self._in_body:
            # The first bytes of a request.
            self._begin_head()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Ignored, as it may be; but the parser understands nothing behind it.
            self._deaf = True
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error
            if isinstance(cause, Problem):
                self._refuse(cause)
            else:
                self._refuse_with(fault_answer("reading a request", cause))
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(
                    Problem(400, "INVALID_HTTP", f"request: expected HTTP/1.1, got others: {error}")
                )
        if self._in_head and self._head_bytes > MAX_HEAD and not self._deaf:
            self._refuse(_head_too_large())
        self._advance()

    def eof_received(self) -> None:
        """See asyncio.Protocol; who sends no more is gone, as with most servers."""

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._blocked = True
        self._set_due()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._blocked = False
        self._set_due()
        self._advance()

    def overdue(self) -> None:
        """Ends the connection, whose client has not done in time what is expected of it."""
        if self._ended or self._blocked:
            self._transport.abort()
        elif self._in_head or self._in_body:
            part, limit = ("head", HEAD_S) if self._in_head else ("body", BODY_S)
            self._refuse(
                Problem(
                    408,
                    "TOO_SLOW",
                    f"{part}: expected within {limit:g} s and {BYTES_PER_S} bytes/s, got it slower",
                )
            )
        else:
            self._close()

    def end(self) -> None:
        """Ends the connection as soon as what has come is answered; the server stops."""
        if self._current is not None or self._waiting:
            return  # The answer says that it is the last one.
        if self._in_head or self._in_body:
            self._refuse(Problem(503, "DRAINING", "the server is stopping", retry_after_s=1.0))
        elif not self._ended:
            self._close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._transport.abort()

    def give_way(self) -> None:
        """Closes the connection at once for another one; no answer is owed to its client."""
        self._deaf = self._ended = True
        self.due = math.inf
        self._transport.abort()

    # The parser's callbacks, in their order

    def _begin_head(self) -> None:
        self._target = b""
        self._fields = []
        self._head_bytes = 0
        self._in_head = True
        self._began = time.monotonic()
        if self._current is None:
            self.due = self._began + HEAD_S

    def on_message_begin(self) -> None:
        """A request begins; that of a pipeline in the middle of what has come."""
        if not self._in_head:
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; value is None of one without."""
        self._fields.append((name, value or b""))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self._deaf:
            return
        self._in_head = False
        size = len(self._target) + sum(len(name) + len(value) for name, value in self._fields)
        if size > MAX_HEAD or len(self._fields) > _MAX_FIELDS:
            raise _head_too_large()
        parser = self._parser
        self._version = parser.get_http_version()
        self._keep = parser.should_keep_alive()
        headers = _joined(self._fields)
        if self._version not in ("1.0", "1.1"):
            raise Problem(505, "HTTP_VERSION", f"version: expected 1.1, got {self._version}")
        if self._version == "1.1" and "host" not in headers:
            raise Problem(400, "INVALID_HTTP", "host: expected in each request, got none")
        path, _, query = _origin_form(self._target).partition("?")
        method = parser.get_method().decode()
        request = HttpRequest(method, path, query, headers, b"", identity=self.identity)
        length = headers.get("content-length", "0")
        has_body = length != "0" or "transfer-encoding" in headers
        if parser.should_upgrade():
            if has_body:
                raise Problem(400, "INVALID_HTTP", "upgrade: expected none with a body, got one")
            self._keep = False
        if int(length) > self._owner.max_message_bytes:
            raise too_large(self._owner.max_message_bytes, length)
        if (int(length) > SMALL_BODY or "transfer-encoding" in headers) and not self._owner.admits(
            request
        ):
            self._receive(request, keep=False, whole=False)
            return
        self._request = request
        self._in_body = True
        if self._current is not None:
            # It is the second one; what comes behind it can wait.
            self._paused = True
            self._transport.pause_reading()
        elif has_body:
            self.due = time.monotonic() + BODY_S
        self._continue = headers.get("expect", "").lower() == "100-continue" and has_body
        self._send_continue()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._deaf:
            return
        self._continue = False
        self._size += len(body)
        self._owner.body_bytes += len(body)
        if self._size > self._owner.max_message_bytes:
            raise too_large(self._owner.max_message_bytes, "more")
        # As much as is still free, so that some is left for the next, and a little in any case.
        free = self._owner.max_body_bytes - self._owner.body_bytes
        if self._size > max(free, SMALL_BODY):
            raise Problem(
                503,
                "TOO_MANY_BYTES",
                f"body: expected no more bytes than are free of the {self._owner.max_body_bytes} "
                "for all requests that are being received, got more",
                retry_after_s=1.0,
            )
        self._parts.append(body)
        if len(self._parts) > _MAX_PARTS and self._size < _PART_BYTES * len(self._parts):
            raise Problem(
                400,
                "TOO_MANY_PARTS",
                f"body: expected parts of {_PART_BYTES} bytes or more on average, got "
                f"{len(self._parts)} parts of {self._size} bytes together",
            )
        if self._current is None:
            self.due += len(body) / BYTES_PER_S

    def on_message_complete(self) -> None:
        """The body is complete."""
        if self._deaf or self._request is None:
            return
        parts, request = self._parts, self._request
        request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._receive(request, keep=self._keep, whole=True)

    def _receive(self, request: HttpRequest, *, keep: bool, whole: bool) -> None:
        """Has a request answered when its turn comes.

        Args:
            request: that came.
            keep: whether more may come.
            whole: whether its body came; else it is refused whatever that is.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise Problem(
                400,
                "TOO_MANY_WAITING",
                f"requests: expected at most {_MAX_WAITING} before an answer, got more",
            )
        self._waiting.append(_Received(request, None, keep, self._version, self._size, whole))
        self._forget_received()
        self._deaf = not keep

    # Answers

    def answer(self, answer: HttpAnswer) -> None:
        """Writes the answer to the request that is being answered."""
        received = self._current
        if received is None:
            return
        self._current = None
        keep = received.keep and not self._owner.draining
        if keep and time.monotonic() - self._made > self._oldest_s:
            keep = False
        self._write(answer, received, keep)
        if keep:
            self._set_due()
            self._advance()
        else:
            self._finish(heard_all=received.whole)

    def _refuse(self, problem: Problem) -> None:
        """Answers a request that is wrong, or not complete, once those before it are answered."""
        self._refuse_with(problem_answer(problem))

    def _refuse_with(self, answer: HttpAnswer) -> None:
        self._deaf = True
        self._owner.body_bytes -= self._size
        self._forget_received()
        self._waiting.append(_Received(None, answer, False, "1.1", 0, False))
        self._advance()

    def _forget_received(self) -> None:
        """Forgets the request that is being received."""
        self._request = None
        self._parts = []
        self._size = 0
        self._in_head = self._in_body = self._continue = False

    def _advance(self) -> None:
        """Has the next requests answered, as long as each is answered at once."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._waiting and self._current is None and not self._blocked and not self._ended:
                received = self._current = self._waiting.popleft()
                self.due = math.inf
                if received.problem is not None:
                    self.answer(received.problem)
                elif received.request is not None:
                    self._owner.body_bytes -= received.size
                    self._owner.begin(self, received.request)
        finally:
            self._advancing = False
        if self._current is None and not self._waiting and not self._ended:
            self._send_continue()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()

    def _send_continue(self) -> None:
        """Asks for the body that a client holds back, once all before it is answered."""
        if self._continue and self._current is None and not self._waiting:
            self._continue = False
            self._transport.write(_CONTINUE)

    def _set_due(self) -> None:
        """Sets until when the client has to do what comes next."""
        now = time.monotonic()
        if self._blocked:
            self.due = now + BODY_S + self._transport.get_write_buffer_size() / BYTES_PER_S
        elif self._ended:
            self.due = now + LINGER_S
        elif self._current is not None:
            self.due = math.inf
        elif self._in_head:
            self.due = now + HEAD_S
        elif self._in_body:
            self.due = now + BODY_S
        else:
            self.due = now + self._owner.keepalive_s

    def _write(self, answer: HttpAnswer, received: _Received, keep: bool) -> None:
        lines = [_status_line(answer.status), "date: ", _date(int(time.time())), "\r\n"]
        if answer.content_type:
            lines += ["content-type: ", answer.content_type, "\r\n"]
        # An answer without content has no length either.
        if answer.status not in (204, 304):
            lines += ["content-length: ", str(len(answer.body)), "\r\n"]
        if not keep:
            lines.append("connection: close\r\n")
        elif received.version == "1.0":
            lines.append("connection: keep-alive\r\n")
        for name, value in answer.headers:
            lines += [name, ": ", value, "\r\n"]
        lines.append("\r\n")
        head = "".join(lines).encode("latin-1", "replace")
        bodiless = received.request is not None and received.request.method == "HEAD"
        if bodiless or not answer.body:
            self._transport.write(head)
        elif len(answer.body) < MAX_HEAD:
            self._transport.write(head + answer.body)
        else:
            self._transport.writelines([head, answer.body])

    def _finish(self, *, heard_all: bool) -> None:
        """Ends the connection behind the last answer."""
        self._deaf = self._ended = True
        self._owner.body_bytes -= sum(each.size for each in self._waiting)
        self._waiting.clear()
        if heard_all:
            self._transport.close()
        else:
            # Reads on, so that the answer arrives.
            self._transport.resume_reading()
            # TLS has no half of a connection: the client ends it, or its time does.
            if self._transport.can_write_eof():
                self._transport.write_eof()
        self._set_due()

    def _close(self) -> None:
        self._deaf = self._ended = True
        self._transport.close()
        self._set_due()


def _head_too_large() -> Problem:
    return Problem(
        431,
        "HEAD_TOO_LARGE",
        f"head: expected at most {MAX_HEAD} bytes and {_MAX_FIELDS} header fields, got more",
    )


def _joined(fields: "Iterable[tuple[bytes, bytes]]") -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _origin_form(target: bytes) -> str:
    """Returns path and query of a request's target.

    Raises:
        Problem: if it is not of a form that a server understands.
    """
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError as error:
        raise Problem(400, "INVALID_HTTP", "target: expected ASCII, got other bytes") from error
    # The absolute form, which clients send to proxies.
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        text = "/" + rest.partition("/")[2]
    if not text.startswith("/") and text != "*":
        raise Problem(400, "INVALID_HTTP", "target: expected a path from /, got another form")
    return text


def _peer(name: object) -> str:
    """Returns an address as grpcio writes it."""
    if not isinstance(name, tuple):
        return "unknown"
    host, port = name[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    phrase = http.HTTPStatus(status).phrase if status in _STATUSES else "Client Closed Request"
    return f"HTTP/1.1 {status} {phrase}\r\n"


_STATUSES = frozenset(map(int, http.HTTPStatus))


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    """Returns a time, s since 1970, as HTTP has it."""
    return formatdate(second, usegmt=True)

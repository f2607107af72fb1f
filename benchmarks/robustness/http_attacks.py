"""What a client may send over HTTP that costs a server more than it costs the client."""

import contextlib
import functools
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

from benchmarks.robustness.attack import PATIENCE_S, Attack
from benchmarks.robustness.attacks import FEW, zeros_as_gzip

_MIB = 2**20
_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
#: What bodies may take, MiB: those that are being received, 64 KiB for each connection, and a
#: request whose JSON or gzip is being read.
_BODIES = 384
_INFER = "/v2/models/mnist/infer"
_LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


class HttpAttacker:
    """See Attacker.

    Args:
        address: host:port.
        reads: whether it reads what comes back.
    """

    def __init__(self, address: str, *, reads: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.sent_bytes = 0
        self._found: list[str] = []
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self._reader = threading.Thread(target=self._read, daemon=True)
        if reads:
            self._reader.start()

    def send(self, data: bytes) -> None:
        """Sends bytes as they are.

        Raises:
            OSError: if the server has closed the connection, or reads nothing.
        """
        self._socket.sendall(data)
        self.sent_bytes += len(data)

    def statuses(self) -> list[str]:
        """See Attacker.statuses."""
        return self._found

    def close(self) -> None:
        """See Attacker.close."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._reader.is_alive():
            self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = self._socket.recv(2**16)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            rest += data
            self._found += [status.decode() for status in _STATUS.findall(rest)]
            # What may be the beginning of one more.
            rest = rest[-12:]


def http_attacks(limit: int) -> list[Attack]:
    """All of them.

    Args:
        limit: largest body that the server accepts, bytes.
    """
    silent = functools.partial(HttpAttacker, reads=False)
    over_http = functools.partial(_over_http, HttpAttacker)
    zeros: dict[str, Any] = {"prepare": zeros_as_gzip}
    return [
        _over_http(silent, "HTTP: 2,000 connections, nothing sent", 2000, lambda _: None, FEW),
        over_http("HTTP: 500 heads at 10 bytes a second", 500, _slow_head, FEW),
        over_http("HTTP: 8 heads of 64 MiB", 8, _large_head, FEW),
        over_http("HTTP: 64 bodies just under the limit, unfinished", 64, _unfinished(limit), 192),
        over_http("HTTP: 8 bodies in 1,000,000 parts", 8, _chunked, _BODIES),
        over_http("HTTP: 8 bodies of 512 MiB of zeros as gzip", 8, _gzip(), _BODIES, **zeros),
        over_http("HTTP: 64 bodies of 15 MiB of zeros as gzip", 64, _small_gzip(limit), _BODIES),
        over_http("HTTP: 16 bodies of JSON, [[[[...", 16, _json(b"[", limit), _BODIES),
        over_http("HTTP: 16 bodies of JSON, [[1],[1],...", 16, _json(b"[1],", limit), _BODIES),
        over_http("HTTP: 64 bodies of JSON of 1,000,000 numbers", 64, _numbers, _BODIES),
        over_http("HTTP: 16 connections, 20,000 requests each at once", 16, _pipeline, FEW),
        _over_http(
            silent, "HTTP: the same of large answers that are not read", 16, _unread, FEW
        ),
    ]  # fmt: skip


def _over_http(
    open_: Callable[[str], HttpAttacker],
    name: str,
    connections: int,
    send: Callable[[Any], None],
    most_mib: int,
    **more: Any,
) -> Attack:
    return Attack(name, "http", connections, open_, send, most_mib, **more)


def _head(*fields: str, path: str = _INFER) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


def _slow_head(connection: HttpAttacker) -> None:
    connection.send(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nX: ")
    for _ in range(30):
        connection.send(b"a")
        time.sleep(0.1)


def _large_head(connection: HttpAttacker) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    for _ in range(64):
        connection.send((b"X: " + b"a" * 1019 + b"\r\n") * 1024)


def _unfinished(limit: int) -> Callable[[HttpAttacker], None]:
    def send(connection: HttpAttacker) -> None:
        connection.send(_head(f"Content-Length: {limit}") + bytes(limit - 1))

    return send


def _chunked(connection: HttpAttacker) -> None:
    connection.send(_head("Transfer-Encoding: chunked"))
    for _ in range(1000):
        connection.send(b"1\r\na\r\n" * 1000)


def _gzip() -> Callable[[HttpAttacker], None]:
    def send(connection: HttpAttacker) -> None:
        data = zeros_as_gzip()
        connection.send(_head("Content-Encoding: gzip", f"Content-Length: {len(data)}") + data)

    return send


def _small_gzip(limit: int) -> Callable[[HttpAttacker], None]:
    """Bodies that are accepted: what they become is read as JSON, of one number."""

    def send(connection: HttpAttacker) -> None:
        data = zlib.compress(b" " * (limit - _MIB), 9)
        for _ in range(8):
            fields = ("Content-Encoding: deflate", f"Content-Length: {len(data)}")
            connection.send(_head(*fields) + data)

    return send


def _json(part: bytes, limit: int) -> Callable[[HttpAttacker], None]:
    def send(connection: HttpAttacker) -> None:
        begin = b'{"inputs":[{"name":"pixels","shape":[4],"datatype":"UINT8","data":['
        data = begin + part * ((limit - 100) // len(part))
        connection.send(_head(f"Content-Length: {len(data)}") + data)

    return send


def _numbers(connection: HttpAttacker) -> None:
    shape, count = b"[1020,28,28,1]", 1020 * 28 * 28
    data = b'{"inputs":[{"name":"pixels","shape":' + shape + b',"datatype":"UINT8","data":['
    data += b"0," * (count - 1) + b"0]}]}"
    for _ in range(2):
        connection.send(_head(f"Content-Length: {len(data)}") + data)


def _pipeline(connection: HttpAttacker) -> None:
    for _ in range(20_000 // 50):
        connection.send(_LIVE * 50)


def _unread(connection: HttpAttacker) -> None:
    for _ in range(20_000 // 50):
        connection.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)

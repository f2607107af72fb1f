"""A client of HTTP/1.1 that sends whatever bytes a test wants, and reads answers one by one."""

import gzip
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

WAIT_S = 60.0


@dataclass
class Reply:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)


class HttpClient:
    """A connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def ask(
        self,
        verb: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request, and read its answer."""
        self.send(request_bytes(verb, target, body, headers))
        return self.read(bodiless=verb == "HEAD")

    def read(self, *, bodiless: bool = False) -> Reply:
        """Read the next answer, decompressed."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        status = int(line.split()[1])
        headers: dict[str, str] = {}
        while (line := self._file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            assert name.lower() not in headers or name.lower() == "vary", line
            headers[name.lower()] = value.strip()
        size = 0 if bodiless or status in (100, 204, 304) else int(headers["content-length"])
        body = self._file.read(size)
        assert len(body) == size, "the answer ends too early"
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return Reply(status, headers, body)

    def wait(self) -> None:
        """Wait for the first byte of an answer, which read() reads."""
        assert self._file.peek(1)

    def is_closed(self) -> bool:
        """Whether the server closes the connection without another byte; waits for either."""
        return self._file.read(1) == b""


def request_bytes(
    verb: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Make the bytes of a request."""
    fields = {"Host": "localhost", **(headers or {})}
    if body is not None and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{verb} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def chunked(*parts: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


def multipart(*files: bytes, boundary: str = "XX") -> tuple[bytes, dict[str, str]]:
    """A form with files: its body, and its header."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="{number}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for number, data in enumerate(files)
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


#: A picture that a model of digits accepts.
PNG = (Path(__file__).parents[2] / "examples/seven.png").read_bytes()

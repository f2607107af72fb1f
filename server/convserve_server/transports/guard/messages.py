"""The messages of a request, checked before they reach a worker.

A gRPC message begins with a byte that says whether it is compressed, and with its length. What a
message claims is checked before any byte of it is passed on, and what a compressed one holds before
its last byte is.
"""

import zlib

from convserve_server.core.errors import MessageTooLarge, ServeError

#: The flag and the length before a message, bytes.
PREFIX = 5
#: A message may grow to so many bytes when it is unzipped, and beyond that to so many times its
#: size. The densest that deflate can do is 1,032 times; pictures and their pixels are below 20.
_FREE_BYTES, _MOST_TIMES = 2**18, 64
#: For zlib: gzip or deflate, as the data says of itself.
_ANY_HEADER = 47
#: Bytes that have to come between two looks.
_LEAST_PROGRESS = 1024
#: Unzipped at a time, bytes.
_STEP = 65536


class Request:
    """What has come of the messages of one stream, until its request is whole or answered.

    Attributes:
        received: bytes, prefixes counted.
        held: of them, those that count as memory.
    """

    __slots__ = ("_left", "_message", "_prefix", "_seen", "_unzip", "_unzipped", "held", "received")

    def __init__(self) -> None:
        self.received = 0
        self.held = 0
        # Received when somebody last looked; see is_slow().
        self._seen = -1
        self._prefix = b""
        # Of the present message: its size, and what of it has not come.
        self._message = 0
        self._left = 0
        self._unzip: zlib._Decompress | None = None
        self._unzipped = 0

    def take(self, data: memoryview, max_message_bytes: int) -> ServeError | None:
        """Notes what has come; returns why the request is refused, None if it is not.

        A server that has not answered has read all messages and keeps them, if there are several:
        together they may be as large as one.
        """
        self.received += len(data)
        while data:
            if self._left:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                if self._unzip is not None and (error := self._count(part, max_message_bytes)):
                    return error
                continue
            missing = PREFIX - len(self._prefix)
            self._prefix += data[:missing]
            data = data[missing:]
            if len(self._prefix) == PREFIX:
                self._message = self._left = int.from_bytes(self._prefix[1:], "big")
                if self._message > max_message_bytes:
                    return too_large(self._message, max_message_bytes)
                self._unzip = zlib.decompressobj(_ANY_HEADER) if self._prefix[0] else None
                self._unzipped = 0
                self._prefix = b""
        if self.received - PREFIX > max_message_bytes:
            return too_large(self.received - PREFIX, max_message_bytes)
        return None

    def is_slow(self) -> bool:
        """Returns whether hardly any byte has come since this was last asked; at first it has."""
        slow = self._seen >= 0 and self.received - self._seen < _LEAST_PROGRESS
        self._seen = self.received
        return slow

    def _count(self, part: memoryview, max_message_bytes: int) -> ServeError | None:
        """Counts what a part of a compressed message holds; returns why it is too much."""
        assert self._unzip is not None
        most = min(max_message_bytes, _FREE_BYTES + _MOST_TIMES * self._message)
        rest: bytes | memoryview = part
        try:
            while rest:
                self._unzipped += len(self._unzip.decompress(rest, _STEP))
                rest = self._unzip.unconsumed_tail
                if self._unzip.eof:  # gzip allows another piece behind the first.
                    rest = self._unzip.unused_data
                    self._unzip = zlib.decompressobj(_ANY_HEADER)
                if self._unzipped > most:
                    if most == max_message_bytes:
                        return too_large(self._unzipped, most)
                    return MessageTooLarge(
                        f"compressed message: expected at most {most} bytes when unzipped, for it "
                        f"has {self._message}; got more; send it as it is",
                        most,
                    )
        except zlib.error:
            # No such data: the worker will not unzip it either, and says so.
            self._unzip = None
        return None


def too_large(size: int, limit: int) -> MessageTooLarge:
    """Returns the error in the words of grpcio, so that clients see no difference."""
    return MessageTooLarge(f"SERVER: Received message larger than max ({size} vs. {limit})", limit)

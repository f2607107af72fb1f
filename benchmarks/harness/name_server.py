"""A name server for tests of balancing: one name, whose addresses change while clients use it.

gRPC asks it where the target names it, dns://127.0.0.1:PORT/HOST:PORT, and Envoy by its
configuration, so nothing of the machine is changed.

Source: RFC 1035 (4.1, messages), RFC 3596 (AAAA).
"""

import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

#: Of the servers; any other name has the same addresses.
NAME = "replicas.test"

_HEADER = struct.Struct("!6H")  # id, flags, questions, answers, authorities, additional
_ANSWER = struct.Struct("!3HIH4s")  # name, type, class, time to live, length, address
_ANSWERS = 0x8580  # A response, authoritative, recursion desired and available.
_NAME_OF_QUESTION = 0xC000 | _HEADER.size  # A pointer to it.
_A, _INTERNET = 1, 1
_LIVES_S = 1
_LARGEST = 4096


class NameServer:
    """Answers every name with the same addresses, from entering the context to leaving it.

    Args:
        addresses: IPv4.

    Attributes:
        address: host:port, UDP.
        addresses: what is answered from now on; may be exchanged at any time.
        questions: that were answered.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._answer_all, name="name server")
        self._stopping = False
        self.address = ""

    def __enter__(self) -> Self:
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def target(self, port: int) -> str:
        """Returns the target of a gRPC client for a port of all addresses."""
        return f"dns://{self.address}/{NAME}:{port}"

    def _answer_all(self) -> None:
        while True:
            message, client = self._socket.recvfrom(_LARGEST)
            if self._stopping:
                return
            self._socket.sendto(answer_to(message, self.addresses), client)
            self.questions += 1


def answer_to(message: bytes, addresses: Sequence[str]) -> bytes:
    """Returns the answer to a question: those addresses for type A, none for any other type."""
    number = _HEADER.unpack_from(message)[0]
    end = message.index(b"\0", _HEADER.size) + 1 + 4  # The name, its type and class.
    kind, _ = struct.unpack_from("!2H", message, end - 4)
    answers = [
        _ANSWER.pack(_NAME_OF_QUESTION, _A, _INTERNET, _LIVES_S, 4, socket.inet_aton(address))
        for address in (addresses if kind == _A else ())
    ]
    header = _HEADER.pack(number, _ANSWERS, 1, len(answers), 0, 0)
    return b"".join((header, message[_HEADER.size : end], *answers))

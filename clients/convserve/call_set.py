"""The calls of one large request: which are due, what came of each, and when all is answered.

Each call is tried again by itself, as retries.py says; one that waits for that counts as in flight,
so that a server that refuses is sent less.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence

import grpc

from convserve.calls import ClassifyOptions, Images, Metadata
from convserve.deadline import Deadline
from convserve.error_mapping import error_from_rpc
from convserve.errors import BadImage
from convserve.replies import Reply
from convserve.retries import Tries
from convserve.settings import Settings
from convserve_protos import classifier_pb2


class CallSet:
    """Numbers the calls of a request and collects their replies.

    Attributes:
        deadline: That of all calls.
        metadata: Sent beside each message.
    """

    def __init__(
        self,
        calls: Sequence[Images],
        options: ClassifyOptions,
        deadline: Deadline,
        settings: Settings,
        metadata: Metadata = (),
    ) -> None:
        """Starts with no call made.

        Args:
            calls: The images of each call.
            options: What is asked of all of them.
            deadline: That of all calls.
            settings: Says how many may be in flight, and where they go.
            metadata: Sent beside each message.
        """
        self.deadline = deadline
        self.metadata = metadata
        self._calls = calls
        self._options = options
        self._settings = settings
        self._next = 0
        self._replies: dict[int, Reply] = {}
        self._tries: dict[int, Tries] = {}
        self._again: list[tuple[float, int]] = []  # A heap: when, and which call.

    def due(self) -> Iterator[tuple[int, classifier_pb2.ClassifyRequest]]:
        """Yields the number and message of each call to be started now."""
        while self._again and self._again[0][0] <= time.monotonic():
            _, number = heapq.heappop(self._again)
            yield number, self._options.request(self._calls[number])
        while (
            self._next < len(self._calls)
            and self._next - len(self._replies) < self._settings.max_in_flight
        ):
            number = self._next
            self._next += 1
            yield number, self._options.request(self._calls[number])

    def wait_s(self) -> float | None:
        """Returns the seconds until a call is to be tried again; None: no call waits for that."""
        return max(0.0, self._again[0][0] - time.monotonic()) if self._again else None

    def finish(self, number: int, reply: classifier_pb2.ClassifyResponse) -> None:
        """Notes the reply to a call."""
        self._replies[number] = reply

    def fail(self, number: int, error: grpc.RpcError) -> None:
        """Notes that a call failed: it is tried again, or the only image in it cannot be used.

        A call of such an image fails as a whole, which must not fail the images of the others.

        Raises:
            ConvserveError: It failed for another reason, and with it the request.
        """
        images = self._calls[number]
        found = error_from_rpc(
            error,
            self._settings.server,
            self.deadline,
            lambda: self._options.request(images).ByteSize(),
            self._settings.tls,
        )
        found.__cause__ = error
        if len(images) == 1 and isinstance(found, BadImage):
            self._replies[number] = found
            return
        tries = self._tries.setdefault(number, Tries.of(self.deadline, self._settings))
        again_s = time.monotonic() + tries.pause_s(found)
        heapq.heappush(self._again, (again_s, number))

    def replies(self) -> list[Reply] | None:
        """Returns the reply to each call, in their order; None: some are not answered yet."""
        if len(self._replies) < len(self._calls):
            return None
        return [self._replies[number] for number in range(len(self._calls))]

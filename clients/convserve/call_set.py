"""The calls of one large request: which are due, what came of each, and when all is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc

from convserve.calls import ClassifyOptions, Images
from convserve.deadline import Deadline
from convserve.error_mapping import error_from_rpc
from convserve.errors import BadImage
from convserve.replies import Reply
from convserve.settings import Settings
from convserve_protos import classifier_pb2


class CallSet:
    """Numbers the calls of a request and collects their replies.

    Attributes:
        deadline: That of all calls.
    """

    def __init__(
        self,
        calls: Sequence[Images],
        options: ClassifyOptions,
        deadline: Deadline,
        settings: Settings,
    ) -> None:
        """Starts with no call made.

        Args:
            calls: The images of each call.
            options: What is asked of all of them.
            deadline: That of all calls.
            settings: Says how many may be in flight, and where they go.
        """
        self.deadline = deadline
        self._calls = calls
        self._options = options
        self._settings = settings
        self._next = 0
        self._replies: dict[int, Reply] = {}

    def due(self) -> Iterator[tuple[int, classifier_pb2.ClassifyRequest]]:
        """Yields the number and message of each call to be started now."""
        while (
            self._next < len(self._calls)
            and self._next - len(self._replies) < self._settings.max_in_flight
        ):
            number = self._next
            self._next += 1
            yield number, self._options.request(self._calls[number])

    def finish(self, number: int, reply: classifier_pb2.ClassifyResponse) -> None:
        """Notes the reply to a call."""
        self._replies[number] = reply

    def fail(self, number: int, error: grpc.RpcError) -> None:
        """Notes that a call failed because the only image in it cannot be used.

        Such a call fails as a whole, which must not fail the images of the other calls.

        Raises:
            ConvserveError: It failed for another reason, and with it the request.
        """
        images = self._calls[number]
        found = error_from_rpc(
            error,
            self._settings.server,
            self.deadline,
            lambda: self._options.request(images).ByteSize(),
        )
        if len(images) > 1 or not isinstance(found, BadImage):
            raise found from error
        found.__cause__ = error
        self._replies[number] = found

    def replies(self) -> list[Reply] | None:
        """Returns the reply to each call, in their order; None: some are not answered yet."""
        if len(self._replies) < len(self._calls):
            return None
        return [self._replies[number] for number in range(len(self._calls))]

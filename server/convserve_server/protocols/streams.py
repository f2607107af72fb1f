"""Streams of many requests, each passed through a unary method by itself.

A stream holds a request from when it is read until its answer is written, which is when the client
can receive it. While a stream holds as much as it may, nothing more is read from it, and so
its client waits. How much that is depends on what all streams of the worker hold together: each may
hold as much as is still free, so that many share the budget without any of them knowing of the
others, and some is left for the next. A stream that holds nothing may always read one request, so
that all go on, whoever uses up the budget.

Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
IEEE/ACM Transactions on Networking 6 (1998).
"""

import asyncio
import threading
from collections import deque
from typing import Protocol

from google.protobuf.message import DecodeError

from convserve_server.core.errors import AnswersUnread, InvalidRequest
from convserve_server.protocols.base import Call, Failure, Stream
from convserve_server.protocols.grpc_errors import to_failure

#: Requests that one stream holds at most.
MAX_HELD = 1024

#: A client that reads no answer for so long, s, counts as gone. The native transport, which passes
#: streams on, does not report when one goes whose requests wait to be read.
PATIENCE_S = 60.0

#: Likewise while the server stops, s.
STOPPING_PATIENCE_S = 5.0

#: What a request takes in memory beside its bytes, from the transport to the batcher.
REQUEST_BYTES = 4096


class StreamBudget:
    """Bytes that all streams of a worker may hold together.

    Args:
        size: of the budget.
    """

    def __init__(self, size: int) -> None:
        #: What is left of it; below 0 once answers are larger than their requests.
        self.free = size
        self._lock = threading.Lock()

    def hold(self, size: int) -> None:
        """Counts bytes as held, or as held no more if negative. Any thread."""
        with self._lock:
            self.free -= size


class StreamMessages(Protocol):
    """What the messages of a stream are.

    Attributes:
        request_name: full name of what a client sends.
        in_order: whether answers come in the order of their requests, as a client expects that
            cannot tell which request an answer is for. If not, they come as they are ready, and
            each request in flight needs an id of its own.
    """

    request_name: str
    in_order: bool

    def request(self, payload: bytes) -> tuple[str, bytes]:
        """Returns the id of a message that was read, and the request of the unary method in it.

        Raises:
            DecodeError: if it is no such message.
        """

    def answer(self, request_id: str, outcome: bytes | Failure) -> bytes:
        """Returns the message that answers a request.

        Args:
            request_id: of the request.
            outcome: what the unary method has answered.
        """


class RequestStreams:
    """The handler of a streaming method.

    Args:
        method: path of the unary method that answers each request.
        messages: of the streams.
        budget: shared with all other streams of the worker.
        patience_s: a client that reads no answer for so long gets no more of them.
        stopping_patience_s: likewise once the server stops.
    """

    def __init__(
        self,
        method: str,
        messages: StreamMessages,
        budget: StreamBudget,
        patience_s: float = PATIENCE_S,
        stopping_patience_s: float = STOPPING_PATIENCE_S,
    ) -> None:
        self._method = method
        self._messages = messages
        self._budget = budget
        self._patience_s = patience_s
        self._stopping_patience_s = stopping_patience_s
        self._open: set[_RequestStream] = set()
        self._stopping = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Reads no more requests; streams end, with OK, when those in flight are answered.

        Not with an error: gRPC clients drop the last answers when an error overtakes them. Any
        thread.
        """
        with self._lock:
            self._stopping = True
            self._patience_s = min(self._patience_s, self._stopping_patience_s)
            for stream in self._open:
                stream.loop.call_soon_threadsafe(stream.stop, self._patience_s)

    async def handle(self, transport: Stream) -> None:
        """Serves one stream.

        Args:
            transport: reads and writes.

        Raises:
            AnswersUnread: if the client reads no answer for patience_s.
            InvalidRequest: if a message is none of those that are expected.
            CancelledError: if the client goes away.
        """
        # At once: some clients wait for them before they send anything.
        await transport.open()
        stream = _RequestStream(
            transport, self._method, self._messages, self._budget, self._patience_s
        )
        with self._lock:
            self._open.add(stream)
            if self._stopping:
                stream.stop(self._patience_s)
        try:
            garbage = await stream.serve()
        except TimeoutError:
            stream.release()
            await stream.discard()
            raise AnswersUnread(
                f"answers: expected a read within {stream.patience_s:g} s, got none"
            ) from None
        finally:
            with self._lock:
                self._open.discard(stream)
            stream.close()
            stream.release()
        if garbage is not None:
            raise InvalidRequest(
                "request",
                f"expected a {self._messages.request_name}, got {garbage} bytes that are not one",
            )


class _RequestStream:
    """One stream: a task that reads, within the budget, and one that writes the answers."""

    def __init__(
        self,
        transport: Stream,
        method: str,
        messages: StreamMessages,
        budget: StreamBudget,
        patience_s: float,
    ) -> None:
        self.loop = transport.loop
        self._transport = transport
        self._method = method
        self._messages = messages
        self._budget = budget
        #: How long an answer may wait to be read, s.
        self.patience_s = patience_s
        #: Ends the writing when one has waited so long.
        self._patience: asyncio.Timeout | None = None
        #: Requests that are held, and their bytes or, once there are any, those of their answers.
        self._count = 0
        self._bytes = 0
        #: Calls by the ids of their requests or, where answers come in order, by the number of the
        #: request.
        self._in_flight: dict[str | int, Call | None] = {}
        #: Requests that were read.
        self._requests = 0
        #: Where answers come in order, the number of the next one, and those that wait for it.
        self._next = 0
        self._early: dict[int, bytes] = {}
        #: Answers that may be written, the oldest first.
        self._answers: deque[bytes] = deque()
        #: Set when there may be something to write, and when more may be read.
        self._answered = asyncio.Event()
        self._written = asyncio.Event()
        self._stopped = False
        self._discarding = False
        self._reader = asyncio.ensure_future(self._read())
        self._reader.add_done_callback(lambda _: self._answered.set())

    def stop(self, patience_s: float) -> None:
        """Answers no more of what is sent, and waits no longer than this for a reader.

        The task that reads is left alone: to go on after a read that was given up is not possible.
        """
        self._stopped = True
        self.patience_s = patience_s
        if self._patience is not None and (end := self._patience.when()) is not None:
            soon = self.loop.time() + patience_s
            self._patience.reschedule(min(end, soon))
        self._answered.set()

    def close(self) -> None:
        """Reads no more, not even to no end."""
        self._reader.cancel()

    async def serve(self) -> int | None:
        """Writes answers until nothing more is read and all that was read is answered.

        Returns: where a message that is not a request ended the stream, its size: it has no id to
            answer to.

        Raises:
            TimeoutError: if the client reads no answer for patience_s.
            CancelledError: if the client goes away.
        """
        async with asyncio.timeout(None) as self._patience:
            try:
                await self._write_all(self._patience)
            finally:
                self._patience = None
        over = self._reader.done() and not self._reader.cancelled()
        return self._reader.result() if over else None

    async def _write_all(self, patience: asyncio.Timeout) -> None:
        while self._count or not (self._stopped or self._reader.done()):
            await self._answered.wait()
            self._answered.clear()
            while self._answers:
                patience.reschedule(self.loop.time() + self.patience_s)
                await self._transport.write(self._answers[0])
                self._hold(-1, -len(self._answers.popleft()) - REQUEST_BYTES)
                self._written.set()
            patience.reschedule(None)

    async def discard(self) -> None:
        """Reads what the client still sends, to no end, until it has gone or says that it ends.

        Only so does the native transport, which passes streams on, see that a client has gone:
        while it waits to be read it looks at nothing else.
        """
        self._discarding = True
        self._written.set()
        await asyncio.wait((self._reader,))

    def release(self) -> None:
        """Holds nothing any more; ends the calls that are not answered."""
        unanswered = [call for call in self._in_flight.values() if call is not None]
        self._in_flight.clear()
        self._early.clear()
        self._answers.clear()
        self._hold(-self._count, -self._bytes)
        for call in unanswered:
            call.cancel()

    async def _read(self) -> int | None:
        """Reads requests until there are no more; returns the size of a message that is not one."""
        while True:
            while (self._stopped or self._is_full()) and not self._discarding:
                self._written.clear()
                await self._written.wait()
            payload = await self._transport.read()
            if payload is None:
                return None
            if self._stopped or self._discarding:
                continue
            try:
                request_id, request = self._messages.request(payload)
            except DecodeError:
                return len(payload)
            self._hold(1, len(payload) + REQUEST_BYTES)
            self._begin(request_id, request, len(payload))

    def _is_full(self) -> bool:
        """Returns whether no more requests may be held."""
        too_many = self._count >= MAX_HELD or self._bytes >= self._budget.free
        return bool(self._count) and too_many

    def _begin(self, request_id: str, request: bytes, size: int) -> None:
        """Begins a call for a request, which counts with so many bytes until it is answered."""
        number, self._requests = self._requests, self._requests + 1
        key = number if self._messages.in_order else request_id

        def done(outcome: bytes | Failure) -> None:
            # Unless the stream was released while the answer was on its way.
            if key in self._in_flight:
                del self._in_flight[key]
                self._answer(number, request_id, outcome, size)

        if key in self._in_flight:
            error = InvalidRequest(
                "request.id",
                f"expected one that is not in flight on this stream, got {request_id!r}",
            )
            self._answer(number, request_id, to_failure(error), size)
        else:
            self._in_flight[key] = None
            self._in_flight[key] = self._transport.inner_call(self._method, request, done)

    def _answer(self, number: int, request_id: str, outcome: bytes | Failure, size: int) -> None:
        """Queues the answer to a request, which counts from now on in the request's stead."""
        answer = self._messages.answer(request_id, outcome)
        self._hold(0, len(answer) - size)
        if self._messages.in_order:
            self._early[number] = answer
            while self._next in self._early:
                self._answers.append(self._early.pop(self._next))
                self._next += 1
        else:
            self._answers.append(answer)
        self._answered.set()

    def _hold(self, count: int, size: int) -> None:
        self._count += count
        self._bytes += size
        self._budget.hold(size)

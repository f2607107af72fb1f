"""StreamClassify: many requests in flight on one stream, each passed through Classify by itself.

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

from google.protobuf.message import DecodeError

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.errors import AnswersUnread, InvalidRequest
from convserve_server.protocols.base import Call, Failure, Stream
from convserve_server.protocols.grpc_errors import failure_status, to_failure

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


class ClassifyStreams:
    """The handler of StreamClassify.

    Args:
        classify: path of the unary method that answers each request.
        max_bytes: that all streams may hold together.
        patience_s: a client that reads no answer for so long gets no more of them.
        stopping_patience_s: likewise once the server stops.
    """

    def __init__(
        self,
        classify: str,
        max_bytes: int,
        patience_s: float = PATIENCE_S,
        stopping_patience_s: float = STOPPING_PATIENCE_S,
    ) -> None:
        self._classify = classify
        self._budget = StreamBudget(max_bytes)
        self._patience_s = patience_s
        self._stopping_patience_s = stopping_patience_s
        self._open: set[_ClassifyStream] = set()
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
        """Serves one stream: bytes of StreamClassifyRequest in, of StreamClassifyResponse out.

        Args:
            transport: reads and writes.

        Raises:
            AnswersUnread: if the client reads no answer for patience_s.
            InvalidRequest: if a message is not a StreamClassifyRequest.
            CancelledError: if the client goes away.
        """
        # At once: some clients wait for them before they send anything.
        await transport.open()
        stream = _ClassifyStream(transport, self._classify, self._budget, self._patience_s)
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
                "expected a convserve.v1.StreamClassifyRequest, "
                f"got {garbage} bytes that are not one",
            )


class _ClassifyStream:
    """One stream: a task that reads, within the budget, and one that writes the answers."""

    def __init__(
        self, transport: Stream, classify: str, budget: StreamBudget, patience_s: float
    ) -> None:
        self.loop = transport.loop
        self._transport = transport
        self._classify_path = classify
        self._budget = budget
        #: How long an answer may wait to be read, s.
        self.patience_s = patience_s
        #: Ends the writing when one has waited so long.
        self._patience: asyncio.Timeout | None = None
        #: Requests that are held, and their bytes or, once there are any, those of their answers.
        self._count = 0
        self._bytes = 0
        #: Calls by the ids of their requests.
        self._in_flight: dict[str, Call | None] = {}
        #: Answers that are not written yet, the oldest first.
        self._answers: deque[bytes] = deque()
        #: Set when there may be something to write, and when more may be read.
        self._answered = asyncio.Event()
        self._written = asyncio.Event()
        self._stopped = False
        self._discarding = False
        self._reader = asyncio.ensure_future(self._read())
        self._reader.add_done_callback(lambda _: self._answered.set())

    def stop(self, patience_s: float) -> None:
        """Classifies no more of what is sent, and waits no longer than this for a reader.

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

        Returns: where a message that is not a StreamClassifyRequest ended the stream, its size: it
            has no id to answer to.

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
            message = pb.StreamClassifyRequest()
            try:
                message.ParseFromString(payload)
            except DecodeError:
                return len(payload)
            self._hold(1, len(payload) + REQUEST_BYTES)
            self._classify(message.request, len(payload))

    def _is_full(self) -> bool:
        """Returns whether no more requests may be held."""
        too_many = self._count >= MAX_HELD or self._bytes >= self._budget.free
        return bool(self._count) and too_many

    def _classify(self, request: pb.ClassifyRequest, size: int) -> None:
        """Begins a call for a request, which counts with so many bytes until it is answered."""
        request_id = request.id

        def done(outcome: bytes | Failure) -> None:
            # Unless the stream was released while the answer was on its way.
            if request_id in self._in_flight:
                del self._in_flight[request_id]
                self._answer(request_id, outcome, size)

        if request_id in self._in_flight:
            error = InvalidRequest(
                "request.id",
                f"expected one that is not in flight on this stream, got {request_id!r}",
            )
            self._answer(request_id, to_failure(error), size)
        else:
            self._in_flight[request_id] = None
            self._in_flight[request_id] = self._transport.inner_call(
                self._classify_path, request.SerializeToString(), done
            )

    def _answer(self, request_id: str, outcome: bytes | Failure, size: int) -> None:
        """Queues the answer to a request, which counts from now on in the request's stead."""
        response = pb.StreamClassifyResponse(id=request_id)
        if isinstance(outcome, Failure):
            response.error.CopyFrom(failure_status(outcome))
        else:
            response.response.ParseFromString(outcome)
        answer = response.SerializeToString()
        self._hold(0, len(answer) - size)
        self._answers.append(answer)
        self._answered.set()

    def _hold(self, count: int, size: int) -> None:
        self._count += count
        self._bytes += size
        self._budget.hold(size)

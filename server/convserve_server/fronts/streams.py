"""StreamClassify: many requests in flight on one stream, each led through Classify by itself.

A stream holds a request from when it is read until its answer is written, which is when the client
has made room for it. While a stream holds as much as it may, nothing more is read from it, and so
its client waits. How much that is depends on what all streams of the worker hold together: each may
hold as much as is still free, so that many share the room without any of them knowing of the
others, and some is left for the next. A stream that holds nothing may always read one request, so
that all go on, whoever fills the room.

Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
IEEE/ACM Transactions on Networking 6 (1998).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from convserve_protos import classifier_pb2 as pb
from convserve_server.errors import InvalidRequest, ServeError, to_status
from convserve_server.fronts.writing import write

#: Requests that one stream holds at most.
MAX_HELD = 1024

#: A client that takes no answer for so long, s, is taken for gone. The native front, which passes
#: streams on, does not tell when one goes whose requests wait to be read.
PATIENCE_S = 60.0

#: Likewise while the server stops, s.
STOPPING_PATIENCE_S = 5.0

#: What a request takes in memory beside its bytes, from the front to the batcher.
REQUEST_BYTES = 4096

#: Takes what became of a request; called once, on the server's event loop.
Done = Callable[[bytes | ServeError], None]
#: Leads the bytes of a ClassifyRequest through the server; returns the number of the call.
Begin = Callable[[bytes, Done], int]
#: Ends calls by their numbers; what became of them is not told.
Cancel = Callable[[Iterable[int]], None]


class Room:
    """Bytes that all streams of a worker may hold together."""

    def __init__(self, size: int) -> None:
        #: What is left of them; below 0 once answers are larger than their requests.
        self.free = size


class ClassifyStreams:
    """The handler of StreamClassify. All methods run on the server's event loop.

    Args:
        max_bytes: that all streams may hold together.
        patience_s: a client that takes no answer for so long gets no more of them.
        stopping_patience_s: likewise once the server stops.
    """

    def __init__(
        self,
        max_bytes: int,
        patience_s: float = PATIENCE_S,
        stopping_patience_s: float = STOPPING_PATIENCE_S,
    ) -> None:
        self._room = Room(max_bytes)
        self._patience_s = patience_s
        self._stopping_patience_s = stopping_patience_s
        self._open: set[_Stream] = set()
        self._stopping = False

    def stop(self) -> None:
        """Read no more requests; streams end, with OK, when those in flight are answered.

        Not with an error: gRPC clients drop the last answers when an error overtakes them.
        """
        self._stopping = True
        self._patience_s = min(self._patience_s, self._stopping_patience_s)
        for stream in self._open:
            stream.stop(self._patience_s)

    async def handle(self, context: Any, begin: Begin, cancel: Cancel) -> None:
        """Serve one stream: bytes of StreamClassifyRequest in, of StreamClassifyResponse out.

        Args:
            context: of the call, which reads and writes.
            begin: leads a request of it through Classify.
            cancel: ends what is not answered yet when the client goes away.
        """
        # Before anything is written: a write that is given up would not say that these are sent.
        await context.send_initial_metadata(())
        stream = _Stream(self._room, context, begin, self._patience_s)
        self._open.add(stream)
        if self._stopping:
            stream.stop(self._patience_s)
        try:
            garbage = await stream.serve()
        except TimeoutError:
            cancel(stream.release())
            await stream.discard()
            problem = f"answers: none was read for {stream.patience_s:g} s"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
        finally:
            self._open.discard(stream)
            stream.close()
            cancel(stream.release())
        if garbage is not None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"request: is no convserve.v1.StreamClassifyRequest ({garbage} bytes)",
            )


class _Stream:
    """One stream: a task that reads, as far as there is room, and one that writes the answers."""

    def __init__(self, room: Room, context: Any, begin: Begin, patience_s: float) -> None:
        self._room = room
        self._context = context
        self._begin = begin
        #: How long an answer may wait to be taken, s.
        self.patience_s = patience_s
        #: Ends the writing when one has waited so long.
        self._patience: asyncio.Timeout | None = None
        #: Requests that are held, and their bytes or, once there are any, those of their answers.
        self._count = 0
        self._bytes = 0
        #: Numbers of the calls by the ids of their requests.
        self._in_flight: dict[str, int] = {}
        #: Answers that are not written yet, the oldest first.
        self._answers: deque[bytes] = deque()
        #: Set when there may be something to write, and when there may be room to read.
        self._answered = asyncio.Event()
        self._written = asyncio.Event()
        self._stopped = False
        self._discarding = False
        self._reader = asyncio.ensure_future(self._read())
        self._reader.add_done_callback(lambda _: self._answered.set())

    def stop(self, patience_s: float) -> None:
        """Classify no more of what is sent, and wait no longer than this for an answer's reader.

        The task that reads is left alone: to go on after a read that was given up is not possible.
        """
        self._stopped = True
        self.patience_s = patience_s
        if self._patience is not None and (end := self._patience.when()) is not None:
            soon = asyncio.get_running_loop().time() + patience_s
            self._patience.reschedule(min(end, soon))
        self._answered.set()

    def close(self) -> None:
        """Read no more, not even to no end."""
        self._reader.cancel()

    async def serve(self) -> int | None:
        """Write answers until nothing more is read and all that was read is answered.

        Returns: the size of a message that is no StreamClassifyRequest, where one ended the stream:
            there is no id to answer to.

        Raises:
            TimeoutError: if the client takes no answer for patience_s.
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
        loop = asyncio.get_running_loop()
        while self._count or not (self._stopped or self._reader.done()):
            await self._answered.wait()
            self._answered.clear()
            while self._answers:
                patience.reschedule(loop.time() + self.patience_s)
                await write(self._context, self._answers[0])
                self._hold(-1, -len(self._answers.popleft()) - REQUEST_BYTES)
                self._written.set()
            patience.reschedule(None)

    async def discard(self) -> None:
        """Read what the client still sends, to no end, until it has gone or says that it ends.

        Only so does the native front, which passes streams on, see that a client has gone: while it
        waits to be read it looks at nothing else.
        """
        self._discarding = True
        self._written.set()
        await asyncio.wait((self._reader,))

    def release(self) -> list[int]:
        """Hold nothing any more; returns the numbers of the calls that are not answered."""
        unanswered = [*self._in_flight.values()]
        self._in_flight.clear()
        self._answers.clear()
        self._hold(-self._count, -self._bytes)
        return unanswered

    async def _read(self) -> int | None:
        """Read requests until there are no more; returns the size of one that is none."""
        while True:
            while (self._stopped or self._is_full()) and not self._discarding:
                self._written.clear()
                await self._written.wait()
            payload = await self._context.read()
            if payload is grpc.aio.EOF:
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
        """Whether no request more may be held."""
        too_many = self._count >= MAX_HELD or self._bytes >= self._room.free
        return bool(self._count) and too_many

    def _classify(self, request: pb.ClassifyRequest, size: int) -> None:
        """Begin a call for a request, which counts with so many bytes until it is answered."""
        request_id = request.id

        def done(outcome: bytes | ServeError) -> None:
            del self._in_flight[request_id]
            self._answer(request_id, outcome, size)

        if request_id in self._in_flight:
            problem = f"{request_id!r} is in flight on this stream already"
            self._answer(request_id, InvalidRequest("request.id", problem), size)
        else:
            self._in_flight[request_id] = 0
            call_id = self._begin(request.SerializeToString(), done)
            if request_id in self._in_flight:  # not answered at once
                self._in_flight[request_id] = call_id

    def _answer(self, request_id: str, outcome: bytes | ServeError, size: int) -> None:
        """Queue the answer to a request, which counts from now on in the request's stead."""
        response = pb.StreamClassifyResponse(id=request_id)
        if isinstance(outcome, ServeError):
            response.error.CopyFrom(to_status(outcome))
        else:
            response.response.ParseFromString(outcome)
        answer = response.SerializeToString()
        self._hold(0, len(answer) - size)
        self._answers.append(answer)
        self._answered.set()

    def _hold(self, count: int, size: int) -> None:
        self._count += count
        self._bytes += size
        self._room.free -= size

"""StreamClassify: many requests in flight on one stream, each led through Classify by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from convserve_protos import classifier_pb2 as pb
from convserve_server.errors import InvalidRequest, ServeError, to_status

#: Requests of one stream in flight; then nothing more is read from it until one is answered.
MAX_IN_FLIGHT = 1024

#: Leads the bytes of a ClassifyRequest through the server; the context is the stream's.
Classify = Callable[[bytes, Any], Awaitable[bytes | ServeError]]


class ClassifyStreams:
    """The handler of StreamClassify.

    Args:
        classify: answers one request.
    """

    def __init__(self, classify: Classify) -> None:
        self._classify = classify
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Read no more requests; streams end, with OK, when those in flight are answered.

        Not with an error: gRPC clients drop the last answers when an error overtakes them.
        """
        self._stopping.set()

    async def handle(self, requests: Any, context: Any) -> None:
        """Serve one stream: bytes of StreamClassifyRequest in, of StreamClassifyResponse out."""
        slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        writing = asyncio.Lock()
        in_flight: set[str] = set()

        async def answer(request: pb.ClassifyRequest) -> None:
            response = pb.StreamClassifyResponse(id=request.id)
            if request.id in in_flight:
                outcome: bytes | ServeError = InvalidRequest(
                    "request.id", f"{request.id!r} is in flight on this stream already"
                )
            else:
                in_flight.add(request.id)
                try:
                    outcome = await self._classify(request.SerializeToString(), context)
                finally:
                    in_flight.discard(request.id)
            if isinstance(outcome, ServeError):
                response.error.CopyFrom(to_status(outcome))
            else:
                response.response.ParseFromString(outcome)
            slots.release()
            async with writing:
                await context.write(response.SerializeToString())

        garbage: bytes | None = None
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            async with asyncio.TaskGroup() as answers:
                while (payload := await _next(requests, stopping)) is not None:
                    request = pb.StreamClassifyRequest()
                    try:
                        request.ParseFromString(payload)
                    except DecodeError:
                        # There is no id to answer to; the stream ends after those in flight.
                        garbage = payload
                        break
                    await slots.acquire()
                    answers.create_task(answer(request.request))
        finally:
            stopping.cancel()
        if garbage is not None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"request: is no convserve.v1.StreamClassifyRequest ({len(garbage)} bytes)",
            )


async def _next(requests: Any, stopping: "asyncio.Future[Any]") -> bytes | None:
    """The next message of a stream; None at its end, or when the server stops."""
    message = asyncio.ensure_future(anext(requests, None))
    await asyncio.wait({message, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not message.done():
        message.cancel()
        return None
    result: bytes | None = message.result()
    return result

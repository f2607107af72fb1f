"""A transport of one file: calls come from the test's own threads."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

from convserve_server.protocols.base import Call, Caller, Failure, Stream
from convserve_server.protocols.router import Router


class InProcessTransport:
    """See Transport."""

    name = "in-process"

    def __init__(self) -> None:
        self._router: Router

    def start(self, router: Router) -> int:
        self._router = router
        return 0

    def flush(self, timeout_s: float) -> None:
        pass

    def close(self) -> None:
        pass

    def ask(self, method: str, payload: bytes) -> "Future[bytes | Failure]":
        """Begin a unary call."""
        call = _InProcessCall(method, payload, None, "test")
        self._router.handle(call)
        return call.answer

    def ask_stream(self, method: str, messages: Sequence[bytes]) -> list[bytes]:
        """Send messages on a stream; returns those that come back."""

        async def serve() -> list[bytes]:
            stream = _InProcessStream(method, messages, self._router)
            await self._router.handle_stream(stream)
            return stream.written

        return asyncio.run(serve())


class _InProcessCall(Call):
    def __init__(
        self, method: str, payload: bytes, deadline: float | None, connection: str
    ) -> None:
        super().__init__(method, payload, deadline, connection)
        self.answer: Future[bytes | Failure] = Future()

    def caller(self) -> Caller:
        return Caller("in-process", ())

    def send(self, payload: bytes) -> bool:
        self.answer.set_result(payload)
        return True

    def send_failure(self, failure: Failure) -> None:
        self.answer.set_result(failure)


class _InProcessStream(Stream):
    def __init__(self, method: str, messages: Sequence[bytes], router: Router) -> None:
        super().__init__(method, None, "test", router.handle)
        self._messages = list(messages)
        self.written: list[bytes] = []
        self.failure: Failure | None = None

    def caller(self) -> Caller:
        return Caller("in-process", ())

    async def open(self) -> None:
        pass

    async def read(self) -> bytes | None:
        return self._messages.pop(0) if self._messages else None

    async def write(self, payload: bytes) -> None:
        self.written.append(payload)

    async def fail(self, failure: Failure) -> None:
        self.failure = failure

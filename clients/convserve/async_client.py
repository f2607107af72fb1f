"""The client for programs with an event loop (asyncio)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy.typing as npt

from convserve import forks
from convserve.async_stream import AsyncStream
from convserve.call_set import CallSet
from convserve.calls import version_choice
from convserve.core import ClientCore
from convserve.deadline import Deadline
from convserve.encoded import File
from convserve.errors import Cancelled, ConvserveError, OtherEventLoop
from convserve.health import Health
from convserve.models import ModelInfo, RefusedVersion
from convserve.pending_requests import Item, Outcome
from convserve.replies import Reply
from convserve.results import Classification
from convserve.settings import Priority
from convserve.steps import BlockingWork, Flow, Step, Stubs, Wait
from convserve.tls_failures import HandshakeFailed
from convserve_protos import classifier_pb2

T = TypeVar("T")


class AsyncClient(ClientCore):
    """Asks a Convserve server what is in pictures, from an event loop.

    One client serves any number of tasks of the event loop in which it was first used; in another
    one all calls raise OtherEventLoop. As for Client, none outlives a fork.

        async with AsyncClient("localhost:50051") as client:
            print((await client.classify(digit)).label)
    """

    def _init_io(self) -> None:
        self._closing = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop
        self._opened: Stubs

    async def classify(
        self,
        pixels: npt.ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> Classification:
        """Classifies one image or many; as Client.classify, with the same arguments and errors.

        Args:
            pixels: uint8, 0 to 255, not scaled: [H, W], [N, H, W], [H, W, C] or [N, H, W, C]; light
                strokes on black for models of digits.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            label: In place of a version: a label that the operator has given to one, "stable".
            top_k: Only the k most probable classes. None: all.
            timeout: Seconds for the whole request. None: the client's timeout.
            priority: "interactive" or "batch", as for the client. None: the client's.

        Raises:
            ConvserveError: As Client.classify.
        """
        asked = version_choice(version, label)
        return await self._run(self._classify(pixels, model, asked, top_k, timeout, priority))

    async def classify_images(
        self,
        images: File | Sequence[File],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> Classification:
        """Classifies one picture file or many; as Client.classify_images.

        Args:
            images: As for Client.classify_images. Paths are read, and pictures of Pillow encoded,
                in another thread.
            model: As for classify.
            version: As for classify.
            label: As for classify.
            top_k: As for classify.
            timeout: As for classify.
            priority: As for classify.

        Raises:
            ConvserveError: As Client.classify_images.
        """
        asked = version_choice(version, label)
        return await self._run(
            self._classify_images(images, model, asked, top_k, timeout, priority)
        )

    async def stream(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> AsyncIterator[tuple[int, Outcome]]:
        """Classifies images of any iterable over one stream, and yields the answers as they finish.

        As Client.stream, with the same errors, except that the items are read by a task of this
        event loop.

        Args:
            items: Each is one image or several and one message: pixels, or the bytes of files.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            label: In place of a version: a label that the operator has given to one, "stable".
            top_k: Only the k most probable classes. None: all.
            timeout: Longest wait for the answer to an item, in seconds. None: the client's.
            priority: "interactive" or "batch", of all items. None: the client's.

        Yields:
            The number of the item, from 0, and its Classification or error.

        Raises:
            Exception: As Client.stream.
        """
        asked = version_choice(version, label)
        deadline = self._deadline(timeout)
        metadata = self._metadata(priority)
        pending = await self._run(self._pending_requests(model, asked, top_k, deadline))
        stream = AsyncStream(
            items,
            pending,
            lambda refused: self._run(self._again(refused, metadata)),
            self._settings.max_in_flight,
        )
        try:
            with self._calling(deadline, pending.largest_bytes):
                call = self._stubs().classifier.StreamClassify(
                    stream.requests(),
                    wait_for_ready=self._settings.wait_for_ready,
                    metadata=self._sent(metadata),
                )
                async with aclosing(stream.outcomes(call)) as outcomes:
                    async for outcome in outcomes:
                        yield outcome
        except HandshakeFailed as error:
            explained = await asyncio.to_thread(self._diagnosis.explain, error)
            raise explained from error.__cause__

    async def models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Returns the models that the server has loaded, by name, the newest version first.

        Raises:
            ConvserveError: See errors.py.
        """
        return await self._run(self._models(self._deadline(timeout)))

    async def refused(self, *, timeout: float | None = None) -> list[RefusedVersion]:
        """Returns the versions that the server has refused to load, and why.

        Raises:
            ConvserveError: See errors.py.
        """
        return await self._run(self._refused(self._deadline(timeout)))

    async def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """Asks whether the server, or one service of it, answers calls.

        Args:
            service: Name of the service; "": the server as a whole.
            timeout: In seconds. None: the client's timeout.

        Raises:
            ServerUnavailable: Nobody answers there.
            ConvserveError: See errors.py.
        """
        return await self._run(self._health(service, self._deadline(timeout)))

    async def close(self) -> None:
        """Closes the connection; calls under way in other tasks raise Cancelled."""
        self._closed = True
        self._closing.set()
        if self._channel is None or forks.is_child():
            return
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, flow: Flow[T]) -> T:
        """Performs the steps of a flow and returns its answer."""
        try:
            step = next(flow)
            while True:
                try:
                    result = await self._perform(step)
                except HandshakeFailed as error:
                    step = flow.throw(await asyncio.to_thread(self._diagnosis.explain, error))
                except ConvserveError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            answer: T = done.value
            return answer

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, BlockingWork):
            return await asyncio.to_thread(step.run)
        if isinstance(step, Wait):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), step.seconds)
            return self._check_open()
        if isinstance(step, CallSet):
            with self._calling(step.deadline):
                return await self._call_all(step)
        with self._calling(step.deadline, step.request.ByteSize):
            return await step.method(self._stubs())(
                step.request,
                timeout=step.deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
                metadata=self._sent(step.metadata),
            )

    async def _call_all(self, calls: CallSet) -> list[Reply]:
        """Makes all calls of a request, several at one time, and none after a failure."""
        classify = self._stubs().classifier.Classify
        running: dict[asyncio.Task[classifier_pb2.ClassifyResponse], int] = {}

        async def call(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
            reply: classifier_pb2.ClassifyResponse = await classify(
                request,
                timeout=calls.deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
                metadata=self._sent(calls.metadata),
            )
            return reply

        try:
            while (replies := calls.replies()) is None:
                for number, request in calls.due():
                    running[asyncio.create_task(call(request))] = number
                if not running:  # All that are left wait to be tried again.
                    await self._perform(Wait(calls.wait_s() or 0.0))
                    continue
                over, _ = await asyncio.wait(
                    running, timeout=calls.wait_s(), return_when=asyncio.FIRST_COMPLETED
                )
                for task in over:
                    number = running.pop(task)
                    try:
                        calls.finish(number, task.result())
                    except grpc.RpcError as error:
                        calls.fail(number, error)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return replies

    def _stubs(self) -> Stubs:
        # A channel belongs to the loop that runs when it is made, so not before the first call.
        forks.use()
        if self._channel is None:
            self._loop = asyncio.get_running_loop()
            self._channel = self._open_channel(grpc.aio)
            self._opened = Stubs(self._channel)
        if self._loop is not asyncio.get_running_loop():
            raise OtherEventLoop(
                f"this client of {self._settings.server} belongs to the event loop in which it was"
                " first used: make one in each loop, as in each asyncio.run()"
            )
        return self._opened

    @contextmanager
    def _calling(
        self, deadline: Deadline, sent_bytes: Callable[[], int] = lambda: 0
    ) -> Iterator[None]:
        try:
            with self._translated(deadline, sent_bytes):
                yield
        except grpc.aio.UsageError as error:
            raise self._closed_error() from error
        except asyncio.CancelledError as error:
            # Closing the channel looks as if somebody had cancelled the task that waits for it.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise Cancelled("the call was cancelled", code=grpc.StatusCode.CANCELLED) from error

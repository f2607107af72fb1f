"""The client for programs with an event loop: the same as Client, with await."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
import numpy.typing as npt
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convserve import forks
from convserve.arguments import seconds, text
from convserve.async_flight import call_all
from convserve.async_stream import AsyncStream
from convserve.calls import Images, Question, split, split_images
from convserve.channel import channel_options
from convserve.dark_ground import DarkGround
from convserve.deadline import Deadline
from convserve.encoded import File, is_bytes
from convserve.errors import (
    Cancelled,
    ClientClosed,
    ConvserveError,
    ModelNotFound,
    OtherEventLoop,
)
from convserve.health import Health, health_from_error, read_health
from convserve.ledger import Item, Ledger, Outcome
from convserve.model_choice import ModelChoice
from convserve.models import (
    ModelInfo,
    RefusedVersion,
    find_model,
    read_models,
    read_refused,
)
from convserve.pillow_pictures import has_pictures
from convserve.replies import read_replies
from convserve.results import Classification
from convserve.settings import (
    DEFAULT_TIMEOUT_S,
    MAX_BYTES_PER_CALL,
    MAX_IMAGES_PER_CALL,
    MAX_IN_FLIGHT,
    Settings,
    default_model,
    default_server,
)
from convserve.statuses import translated
from convserve_protos import classifier_pb2, classifier_pb2_grpc

if TYPE_CHECKING:
    from convserve_protos.classifier_pb2_grpc import ClassifierAsyncStub


@dataclass(frozen=True, slots=True)
class _Stubs:
    loop: asyncio.AbstractEventLoop
    channel: grpc.aio.Channel
    classifier: ClassifierAsyncStub
    health: Any  # grpcio-health-checking has no types.


class AsyncClient:
    """Asks a Convserve server what is in pictures, from an event loop.

    One client serves any number of tasks of the event loop in which it was first used; in another
    one all calls raise OtherEventLoop. As for Client, none outlives a fork.

        async with AsyncClient("localhost:50051") as client:
            print((await client.classify(digit)).label)
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        model: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        wait_for_ready: bool = False,
        max_images_per_call: int = MAX_IMAGES_PER_CALL,
        max_bytes_per_call: int = MAX_BYTES_PER_CALL,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """Makes a client; the connection is made when it is first needed.

        Args:
            server: As for Client.
            model: As for Client.
            timeout: As for Client: seconds.
            wait_for_ready: As for Client.
            max_images_per_call: As for Client.
            max_bytes_per_call: As for Client.
            max_in_flight: As for Client.

        Raises:
            InvalidRequest: An argument is not what is taken.
        """
        self._settings = Settings(
            server=default_server() if server is None else server,
            model=model or default_model(),
            timeout_s=timeout,
            wait_for_ready=wait_for_ready,
            max_images_per_call=max_images_per_call,
            max_bytes_per_call=max_bytes_per_call,
            max_in_flight=max_in_flight,
        )
        self._opened: _Stubs | None = None
        self._choice = ModelChoice(self._settings.model)
        self._ground = DarkGround()
        self._closed = False

    async def classify(
        self,
        pixels: npt.ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
    ) -> Classification:
        """Classifies one image or many; as Client.classify, with the same arguments and errors.

        Args:
            pixels: uint8, 0 to 255, not scaled: [H, W], [N, H, W], [H, W, C] or [N, H, W, C]; light
                strokes on black for models of digits.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            top_k: Only the k most probable classes. None: all.
            timeout: Seconds for the whole request. None: the client's timeout.

        Raises:
            ConvserveError: As Client.classify.
        """
        calls = split(pixels, self._settings)
        deadline = self._deadline(timeout)
        answer = await self._ask(calls, model, version, top_k, deadline)
        if self._ground.doubtful(calls):
            # Advice only: the answer is there, whether or not the models can be listed now.
            kind = ""
            with suppress(ConvserveError):
                kind = await self._kind(model, version, deadline)
            self._ground.judge(calls, kind)
        return answer

    async def classify_images(
        self,
        images: File | Sequence[File],
        *,
        model: str | None = None,
        version: int | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
    ) -> Classification:
        """Classifies one picture file or many; as Client.classify_images.

        Args:
            images: As for Client.classify_images. Paths are read, and pictures of Pillow encoded,
                in another thread.
            model: As for classify.
            version: As for classify.
            top_k: As for classify.
            timeout: As for classify.

        Raises:
            ConvserveError: As Client.classify_images.
        """
        deadline = self._deadline(timeout)
        kind = await self._kind(model, version, deadline) if has_pictures(images) else ""
        if is_bytes(images):
            calls = split_images(images, self._settings)
        else:  # Files are read and pictures encoded, which is no work for the event loop.
            calls = await asyncio.to_thread(split_images, images, self._settings, kind)
        return await self._ask(calls, model, version, top_k, deadline)

    async def stream(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        model: str | None = None,
        version: int | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[int, Outcome]]:
        """Classifies images as they come, over one stream, and gives the answers as they finish.

        As Client.stream, with the same errors, except that the items are read by a task of this
        event loop.

        Args:
            items: Each is one image or several and one message: pixels, or the bytes of files.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            top_k: Only the k most probable classes. None: all.
            timeout: Longest wait for the answer to an item, in seconds. None: the client's.

        Yields:
            The number of the item, from 0, and its Classification or error.

        Raises:
            Exception: As Client.stream.
        """
        deadline = self._deadline(timeout)
        questions = await self._questions(model, version, top_k, deadline)
        ledger = Ledger(questions, self._settings, deadline.timeout_s)
        stream = AsyncStream(items, ledger, self._settings.max_in_flight)
        with self._calling(deadline):
            call = self._stubs().classifier.StreamClassify(
                stream.requests(), wait_for_ready=self._settings.wait_for_ready
            )
            async with aclosing(stream.outcomes(call)) as outcomes:
                async for outcome in outcomes:
                    yield outcome

    async def models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Returns the models that the server has loaded, by name, the newest version first.

        Raises:
            ConvserveError: See errors.py.
        """
        return await self._models(self._deadline(timeout))

    async def refused(self, *, timeout: float | None = None) -> list[RefusedVersion]:
        """Returns the versions that the server has refused to load, and why.

        Raises:
            ConvserveError: See errors.py.
        """
        return read_refused(await self._listing(self._deadline(timeout)))

    async def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """Asks whether the server, or one service of it, answers calls.

        Args:
            service: Name of the service; "": the server as a whole.
            timeout: In seconds. None: the client's timeout.

        Raises:
            ServerUnavailable: Nobody answers there.
            ConvserveError: See errors.py.
        """
        deadline = self._deadline(timeout)
        try:
            with self._calling(deadline):
                reply = await self._stubs().health.Check(
                    health_pb2.HealthCheckRequest(service=text("service", service)),
                    timeout=deadline.left_s(),
                    wait_for_ready=self._settings.wait_for_ready,
                )
        except ConvserveError as error:
            return health_from_error(error)
        return read_health(reply.status)

    async def close(self) -> None:
        """Closes the connection; calls under way in other tasks raise Cancelled."""
        self._closed = True
        if self._opened is None or forks.is_child():
            return
        await self._opened.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _stubs(self) -> _Stubs:
        # A channel belongs to the loop that runs when it is made, so not before the first call.
        forks.use()
        if self._opened is None:
            server = self._settings.server
            channel = grpc.aio.insecure_channel(server, options=channel_options(server))
            forks.hold(channel)
            self._opened = _Stubs(
                asyncio.get_running_loop(),
                channel,
                classifier_pb2_grpc.ClassifierStub(channel),
                health_pb2_grpc.HealthStub(channel),
            )
        self._check_loop(self._opened)
        return self._opened

    def _check_loop(self, opened: _Stubs) -> None:
        if opened.loop is not asyncio.get_running_loop():
            raise OtherEventLoop(
                f"this client of {self._settings.server} belongs to the event loop in which it was"
                " first used: make one in each loop, as in each asyncio.run()"
            )

    async def _ask(
        self,
        calls: Sequence[Images],
        model: str | None,
        version: int | None,
        top_k: int | None,
        deadline: Deadline,
    ) -> Classification:
        question = await self._question(calls, model, version, top_k, deadline)
        with self._calling(deadline):
            stub = self._stubs().classifier
            replies = await call_all(stub, calls, question, deadline, self._settings)
        return read_replies(replies, list(map(len, calls)), question, deadline.spent_us())

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(
            self._settings.timeout_s if timeout is None else seconds("timeout", timeout)
        )

    async def _question(
        self,
        calls: Sequence[Images],
        model: str | None,
        version: int | None,
        top_k: int | None,
        deadline: Deadline,
    ) -> Question:
        asked = Question.of(model, version, top_k)
        name = self._choice.named(asked.model) or self._choice.remembered(asked.version, calls)
        if name is None:
            loaded = await self._models(deadline)
            name = self._choice.among(loaded, asked.version, calls)
        return replace(asked, model=name)

    async def _questions(
        self, model: str | None, version: int | None, top_k: int | None, deadline: Deadline
    ) -> Callable[[Images], Question]:
        """Returns what makes the question about each item of a stream."""
        asked = Question.of(model, version, top_k)
        if (name := self._choice.named(asked.model)) is not None:
            named = replace(asked, model=name)
            return lambda _: named
        loaded = await self._models(deadline)
        return lambda images: replace(
            asked, model=self._choice.among(loaded, asked.version, [images])
        )

    async def _kind(self, model: str | None, version: int | None, deadline: Deadline) -> str:
        """Returns the kind of the model for pictures of Pillow, which decides how they are sent."""
        asked = Question.of(model, version, None)
        loaded = await self._models(deadline)
        name = self._choice.named(asked.model) or self._choice.of_pictures(loaded, asked.version)
        return find_model(loaded, name, asked.version).kind

    async def _models(self, deadline: Deadline) -> list[ModelInfo]:
        return read_models(await self._listing(deadline))

    async def _listing(self, deadline: Deadline) -> classifier_pb2.ListModelsResponse:
        with self._calling(deadline):
            return await self._stubs().classifier.ListModels(
                classifier_pb2.ListModelsRequest(),
                timeout=deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
            )

    @contextmanager
    def _calling(self, deadline: Deadline) -> Iterator[None]:
        closed = f"the client of {self._settings.server} is closed"
        if self._closed:
            raise ClientClosed(closed)
        try:
            with translated(self._settings.server, deadline):
                yield
        except ModelNotFound:
            self._choice.forget()  # It may have been replaced by another one.
            raise
        except grpc.aio.UsageError as error:
            raise ClientClosed(closed) from error
        except asyncio.CancelledError as error:
            # Closing the channel looks as if somebody had cancelled the task that waits for it.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise Cancelled("the call was cancelled", code=grpc.StatusCode.CANCELLED) from error

"""Client and AsyncClient behind one face, so that each test runs over both."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, closing
from typing import Any, Protocol

import numpy.typing as npt

from convserve import (
    AsyncClient,
    Classification,
    Client,
    ConvserveError,
    Health,
    ModelInfo,
    RefusedVersion,
)
from convserve.pending_requests import Item
from tests.clients.scripted_server import PATIENCE_S

Outcome = Classification | ConvserveError


class AnyClient(Protocol):
    def classify(self, pixels: npt.ArrayLike, **options: Any) -> Classification: ...
    def classify_images(self, images: Any, **options: Any) -> Classification: ...
    def stream(self, items: Iterable[Item], **options: Any) -> Iterator[tuple[int, Outcome]]: ...
    def models(self, **options: Any) -> list[ModelInfo]: ...
    def refused(self, **options: Any) -> list[RefusedVersion]: ...
    def health(self, service: str = "", **options: Any) -> Health: ...
    def close(self) -> None: ...


class SyncFace:
    def __init__(self, server: str, **options: Any) -> None:
        self._client = Client(server, **options)

    def classify(self, pixels: npt.ArrayLike, **options: Any) -> Classification:
        return self._client.classify(pixels, **options)

    def classify_images(self, images: Any, **options: Any) -> Classification:
        return self._client.classify_images(images, **options)

    def models(self, **options: Any) -> list[ModelInfo]:
        return self._client.models(**options)

    def refused(self, **options: Any) -> list[RefusedVersion]:
        return self._client.refused(**options)

    def health(self, service: str = "", **options: Any) -> Health:
        return self._client.health(service, **options)

    def close(self) -> None:
        self._client.close()

    def stream(self, items: Iterable[Item], **options: Any) -> Iterator[tuple[int, Outcome]]:
        with closing(self._client.stream(items, **options)) as outcomes:  # type: ignore[type-var]
            yield from outcomes


class Loop:
    """An event loop in a thread, as a program with other work has it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(PATIENCE_S)

    def stop(self) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()


class AsyncFace:
    def __init__(self, loop: Loop, server: str, **options: Any) -> None:
        self._loop = loop
        self._client = AsyncClient(server, **options)

    def classify(self, pixels: npt.ArrayLike, **options: Any) -> Classification:
        result: Classification = self._loop.run(self._client.classify(pixels, **options))
        return result

    def classify_images(self, images: Any, **options: Any) -> Classification:
        result: Classification = self._loop.run(self._client.classify_images(images, **options))
        return result

    def stream(self, items: Iterable[Item], **options: Any) -> Iterator[tuple[int, Outcome]]:
        outcomes = self._client.stream(items, **options)

        async def step() -> tuple[int, Outcome]:
            return await anext(outcomes)

        try:
            while True:
                try:
                    yield self._loop.run(step())
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run(aclosing(outcomes).__aexit__(None, None, None))  # type: ignore[type-var]

    def models(self, **options: Any) -> list[ModelInfo]:
        result: list[ModelInfo] = self._loop.run(self._client.models(**options))
        return result

    def refused(self, **options: Any) -> list[RefusedVersion]:
        result: list[RefusedVersion] = self._loop.run(self._client.refused(**options))
        return result

    def health(self, service: str = "", **options: Any) -> Health:
        result: Health = self._loop.run(self._client.health(service, **options))
        return result

    def close(self) -> None:
        self._loop.run(self._client.close())

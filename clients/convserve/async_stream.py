"""The event loop's side of one stream: images go out, answers come in, in no order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import TYPE_CHECKING

from convserve import forks
from convserve.errors import Cancelled
from convserve.pending_requests import Item, Outcome, PendingRequests, Refused, iterator_of
from convserve_protos import classifier_pb2

if TYPE_CHECKING:
    from grpc.aio import StreamStreamCall

    Call = StreamStreamCall[
        classifier_pb2.StreamClassifyRequest, classifier_pb2.StreamClassifyResponse
    ]

_END = None


class AsyncStream:
    """One bidirectional stream between the caller's items and the caller's loop.

    As Stream, with tasks for threads: grpc's own one draws requests(), one of ours reads the
    answers, and the caller takes both sides' events from one queue.
    """

    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        pending: PendingRequests,
        again: Callable[[Refused], Awaitable[Outcome | Refused]],
        max_in_flight: int,
    ) -> None:
        """Starts nothing yet.

        Args:
            items: Of the caller.
            pending: Numbers and matches the requests.
            again: Makes a request that was refused again, once.
            max_in_flight: Requests without an outcome at one time.
        """
        self._items = _async_iterator(items)
        self._pending = pending
        self._again = again
        self._slots = asyncio.Semaphore(max_in_flight)
        self._events: asyncio.Queue[tuple[int, Outcome] | Exception | None] = asyncio.Queue()

    async def requests(self) -> AsyncIterator[classifier_pb2.StreamClassifyRequest]:
        """Yields the messages to send, each as soon as max_in_flight allows it."""
        try:
            for index in itertools.count():
                await self._slots.acquire()
                try:
                    item = await anext(self._items)
                except StopAsyncIteration:
                    self._pending.end_sending()
                    return
                yield self._pending.add(index, item)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's task
            self._events.put_nowait(error)

    async def outcomes(self, call: Call) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Yields each item's number and outcome as soon as it is known.

        Raises:
            DeadlineExceeded: An answer is overdue.
            Exception: Whatever stopped the sending or the receiving.
        """
        forks.hold(call)
        reader = asyncio.create_task(self._read(call))
        try:
            while True:
                forks.use()
                # Outside of try: the error of an overdue answer is a TimeoutError, too.
                left_s = self._pending.seconds_left()
                try:
                    async with asyncio.timeout(left_s):
                        event = await self._events.get()
                except TimeoutError:
                    continue  # Either an answer is overdue by now, or there was none to wait for.
                if event is _END:
                    self._pending.check_complete()
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
                self._slots.release()
        finally:
            if not forks.is_child():
                call.cancel()
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, call: Call) -> None:
        retrying: list[asyncio.Task[None]] = []
        try:
            async for response in call:
                index, outcome = self._pending.match(response)
                if isinstance(outcome, Refused):
                    retrying = [task for task in retrying if not task.done()]
                    retrying.append(asyncio.create_task(self._retry(index, outcome)))
                else:
                    self._events.put_nowait((index, outcome))
            await asyncio.gather(*retrying)
            self._events.put_nowait(_END)
        except asyncio.CancelledError:
            # Either nobody reads any more, or the channel was closed and the reader must know.
            self._events.put_nowait(Cancelled("the stream was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - raised again in the caller's task
            self._events.put_nowait(error)
        finally:
            for task in retrying:
                task.cancel()

    async def _retry(self, index: int, refused: Refused) -> None:
        try:
            outcome: Outcome | Refused = refused
            while isinstance(outcome, Refused):
                await asyncio.sleep(outcome.pause_s)
                outcome = await self._again(outcome)
            self._events.put_nowait((index, outcome))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's task
            self._events.put_nowait(error)


async def _async_iterator(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in iterator_of(items):
            yield item

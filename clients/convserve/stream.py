"""The threads' side of one stream: images go out, answers come in, in no order."""

from __future__ import annotations

import itertools
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from convserve import forks
from convserve.pending_requests import Item, Outcome, PendingRequests, Refused, iterator_of
from convserve_protos import classifier_pb2

if TYPE_CHECKING:
    from grpc import _CallIterator

_END = None

#: For a thread of a stream to see that its call was cancelled, generously, s. It is a daemon: if
#: gRPC does not wake it, the caller is not held up.
_ENDING_S = 10.0

#: Likewise for one that is in the caller's own items, which may block it for ever.
_IN_ITEMS_S = 0.2


class _Drawing:
    """The thread of grpc's that draws the requests of a stream."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.is_in_items = False

    def join(self) -> None:
        """Waits until it has ended, but not for the caller's items."""
        _join(self.thread, _IN_ITEMS_S if self.is_in_items else _ENDING_S)


def _join(thread: threading.Thread | None, timeout_s: float) -> None:
    """Waits for a thread, unless it is this one: garbage is collected on any."""
    if thread is not None and thread is not threading.current_thread():
        thread.join(timeout_s)


class Stream:
    """One bidirectional stream between the caller's items and the caller's loop.

    Three threads meet here: grpc's own one draws requests(), one of ours reads the answers, and the
    caller takes both sides' events from one queue, so that it can give up at a deadline. Each
    request that is to be made again has a thread for that. All but the caller's are daemons: a
    stream that was left open keeps no process from ending.
    """

    def __init__(
        self,
        items: Iterable[Item],
        pending: PendingRequests,
        again: Callable[[Refused], Outcome | Refused],
        max_in_flight: int,
    ) -> None:
        """Starts nothing yet.

        Args:
            items: Of the caller.
            pending: Numbers and matches the requests.
            again: Makes a request that was refused again, once.
            max_in_flight: Requests without an outcome at one time.
        """
        self._items = items
        self._pending = pending
        self._again = again
        self._slots = threading.Semaphore(max_in_flight)
        self._stopped = threading.Event()
        self._drawing = _Drawing()
        self._waiting = threading.Event()  # The caller's thread is in here, not in its own loop.
        self._events: queue.SimpleQueue[tuple[int, Outcome] | Exception | None] = (
            queue.SimpleQueue()
        )

    def requests(self) -> Iterator[classifier_pb2.StreamClassifyRequest]:
        """Yields the messages to send, each as soon as max_in_flight allows it."""
        drawing = self._drawing
        drawing.thread = threading.current_thread()
        try:
            items = iterator_of(self._items)
            for index in itertools.count():
                self._slots.acquire()
                if self._stopped.is_set():
                    return
                drawing.is_in_items = True
                try:
                    item = next(items)
                except StopIteration:
                    self._pending.end_sending()
                    return
                finally:
                    drawing.is_in_items = False
                yield self._pending.add(index, item)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self._events.put(error)

    def outcomes(
        self, call: _CallIterator[classifier_pb2.StreamClassifyResponse]
    ) -> Iterator[tuple[int, Outcome]]:
        """Yields each item's number and outcome as soon as it is known.

        Raises:
            DeadlineExceeded: An answer is overdue.
            ForkedProcess: The stream was begun before this process was forked.
            Exception: Whatever stopped the sending or the receiving.
        """
        forks.hold(call)
        reader = threading.Thread(
            target=self._read, args=(call,), name="convserve-stream", daemon=True
        )
        reader.start()
        # Of a generator that was not closed this is run by atexit, while threads still run. Later,
        # when the interpreter takes its modules apart, they are stopped wherever they were, also
        # inside the locks that cancel() and join() want, and the call itself when it is collected.
        end = weakref.finalize(
            self, self._end, call, reader, self._drawing, self._stopped, self._waiting, self._slots
        )
        try:
            while True:
                self._waiting.set()
                try:
                    event = self._events.get(timeout=self._pending.seconds_left())
                except queue.Empty:
                    continue  # Either an answer is overdue by now, or there was none to wait for.
                self._waiting.clear()
                if event is _END:
                    self._pending.check_complete()
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
                forks.use()  # Before any lock, whose owner may be gone.
                self._slots.release()
        finally:
            self._waiting.clear()
            end()

    @staticmethod
    def _end(
        call: _CallIterator[classifier_pb2.StreamClassifyResponse],
        reader: threading.Thread,
        drawing: _Drawing,
        stopped: threading.Event,
        waiting: threading.Event,
        slots: threading.Semaphore,
    ) -> None:
        """Ends the threads; free of self, whose life would otherwise never be over."""
        # At exit, a caller who waits is a daemon, which is stopped with all that it holds.
        if forks.is_child() or waiting.is_set():
            return
        stopped.set()
        slots.release()
        # Called by the thread that reports the channel's events, outside the lock of the call.
        ended = threading.Event()
        if not call.add_callback(ended.set):
            ended.set()
        call.cancel()
        _join(reader, _ENDING_S)
        drawing.join()
        ended.wait(_ENDING_S)

    def _read(self, call: _CallIterator[classifier_pb2.StreamClassifyResponse]) -> None:
        retrying: list[threading.Thread] = []
        try:
            for response in call:
                index, outcome = self._pending.match(response)
                if not isinstance(outcome, Refused):
                    self._events.put((index, outcome))
                    continue
                retrying = [thread for thread in retrying if thread.is_alive()]
                retrying.append(
                    threading.Thread(
                        target=self._retry,
                        args=(index, outcome),
                        name="convserve-retry",
                        daemon=True,
                    )
                )
                retrying[-1].start()
            for thread in retrying:
                thread.join()
            self._events.put(_END)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self._events.put(error)

    def _retry(self, index: int, refused: Refused) -> None:
        try:
            outcome: Outcome | Refused = refused
            while isinstance(outcome, Refused):
                if self._stopped.wait(outcome.pause_s):
                    return
                outcome = self._again(outcome)
            self._events.put((index, outcome))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self._events.put(error)

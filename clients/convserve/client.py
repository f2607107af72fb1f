"""The client for programs without an event loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy.typing as npt

from convserve import forks
from convserve.call_set import CallSet
from convserve.calls import version_choice
from convserve.core import ClientCore
from convserve.deadline import Deadline
from convserve.encoded import File
from convserve.errors import ConvserveError
from convserve.health import Health
from convserve.models import ModelInfo, RefusedVersion
from convserve.pending_requests import Item, Outcome
from convserve.replies import Reply
from convserve.results import Classification
from convserve.settings import Priority
from convserve.steps import BlockingWork, Flow, Step, Stubs, Wait
from convserve.stream import Stream
from convserve.tls_failures import HandshakeFailed
from convserve_protos import classifier_pb2

T = TypeVar("T")


class Client(ClientCore):
    """Asks a Convserve server what is in pictures.

    One client serves any number of threads; it holds one connection to each server behind the name.
    A client that was made before a fork serves the child if nothing was asked before it; otherwise
    all calls there raise ForkedProcess at once, those of other clients too.

        with Client("localhost:50051") as client:
            print(client.classify(digit).label)
    """

    def _init_io(self) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._channel: grpc.Channel | None = None
        self._opened: Stubs

    def classify(
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
        """Classifies one image or many.

        What is too large for one call is split, with several calls under way; the first call that
        fails ends the others.

        Args:
            pixels: uint8, 0 to 255, not scaled, of the size that the model expects: [H, W] or
                [H, W, C] for one image, [N, H, W] or [N, H, W, C] for many, C being 1 (grey) or 3
                (RGB). Three dimensions are one image if the last is 1 or 3. For models of digits
                as MNIST has them: light strokes on black (0), which fill 20 x 20 of the 28 x 28;
                another background brings answers at chance, and a UserWarning once for each client.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            label: In place of a version: a label that the operator has given to one, "stable".
            top_k: Only the k most probable classes, 1 to the number of classes. None: all.
            timeout: Seconds for the whole request. None: the client's timeout.
            priority: "interactive" or "batch", as for the client. None: the client's.

        Returns:
            One result for each image, in order; that of a single image can be read from it
            directly.

        Raises:
            InvalidRequest: The pixels or an argument are of the wrong kind; or no model was named
                and several fit.
            ModelNotFound: No such model or version is loaded.
            DeadlineExceeded: There was no answer in time.
            ServerUnavailable: The server cannot be reached, is starting or shutting down.
            TlsFailed: TLS was not agreed: a certificate is not accepted, or one side speaks none.
            ServerBusy: The server's queue stayed full through all tries.
            CannotMeetDeadline: Its queue is longer than the timeout; not tried again.
            ConvserveError: Whatever else went wrong; see errors.py.
        """
        asked = version_choice(version, label)
        return self._run(self._classify(pixels, model, asked, top_k, timeout, priority))

    def classify_images(
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
        """Classifies one picture file or many, which the server decodes.

        Split as in classify. Of several images, one that cannot be used has a BadImage in place of
        an answer.

        Args:
            images: One picture, or several in a sequence. Each is the bytes of a file or the Path
                of one, in a format of ModelInfo.file_formats: JPEG for most models of photographs,
                JPEG or PNG for models of digits and of pixels; or a picture of Pillow, turned as
                its Exif orientation says and sent as PNG. For models that read JPEG alone it is
                sent as JPEG of quality 95, 4:4:4, which may change its values by a few levels; the
                bytes of the file it came from lose nothing. Pictures of Pillow cost one more call,
                which asks what the model reads. All files of a request are in memory at once.
            model: As for classify.
            version: As for classify.
            label: As for classify.
            top_k: As for classify.
            timeout: As for classify.
            priority: As for classify.

        Raises:
            BadImage: The only image of the request cannot be used; its reason says why.
            InvalidRequest: Something is not a picture, or an argument is not what is expected.
            MessageTooLarge: An image is larger than the server accepts, or over 64 MiB.
            OSError: The file of a Path cannot be read.
            ConvserveError: As classify.
        """
        asked = version_choice(version, label)
        return self._run(self._classify_images(images, model, asked, top_k, timeout, priority))

    def stream(
        self,
        items: Iterable[Item],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> Iterator[tuple[int, Outcome]]:
        """Classifies images of any iterable over one stream, and yields the answers as they finish.

        At most max_in_flight items have been read and not yet given back, so memory stays flat.
        The items are read in another thread, so a slow source holds up no answer. What a busy
        server refuses is tried again as classify does, one by one; a stream that is lost is not.
        A loop that is left early leaves the stream open until close()
        of what this returns, or until nothing refers to it; it keeps no process from ending.

        Args:
            items: Each is one image or several and one message, not split: pixels as in classify,
                or the bytes or Paths of files as in classify_images. A picture of Pillow is pixels
                here.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            label: In place of a version: a label that the operator has given to one, "stable".
            top_k: Only the k most probable classes. None: all.
            timeout: Longest wait for the answer to an item, in seconds. None: the client's.
            priority: "interactive" or "batch", of all items. None: the client's.

        Yields:
            The number of the item, from 0, and its Classification, or the error that classify
            would have raised for it; the stream goes on after an error.

        Raises:
            InvalidRequest: An item is of the wrong kind, which was seen before it was sent.
            ConvserveError: The stream itself failed; see errors.py.
            Exception: Whatever reading the items raised.
        """
        asked = version_choice(version, label)
        deadline = self._deadline(timeout)
        metadata = self._metadata(priority)
        pending = self._run(self._pending_requests(model, asked, top_k, deadline))
        stream = Stream(
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
                yield from stream.outcomes(call)
        except HandshakeFailed as error:
            raise self._diagnosis.explain(error) from error.__cause__

    def models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Returns the models that the server has loaded, by name, the newest version first.

        Raises:
            ConvserveError: See errors.py.
        """
        return self._run(self._models(self._deadline(timeout)))

    def refused(self, *, timeout: float | None = None) -> list[RefusedVersion]:
        """Returns the versions that the server has refused to load, and why.

        Raises:
            ConvserveError: See errors.py.
        """
        return self._run(self._refused(self._deadline(timeout)))

    def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """Asks whether the server, or one service of it, answers calls.

        Args:
            service: Name of the service; "": the server as a whole.
            timeout: In seconds. None: the client's timeout.

        Raises:
            ServerUnavailable: Nobody answers there.
            ConvserveError: See errors.py.
        """
        return self._run(self._health(service, self._deadline(timeout)))

    def close(self) -> None:
        """Closes the connection; calls under way in other threads raise Cancelled."""
        self._closed = True
        if forks.is_child():
            return
        self._closing.set()
        with self._lock:
            if self._channel is not None:
                self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        """Performs the steps of a flow and returns its answer."""
        try:
            step = next(flow)
            while True:
                try:
                    result = self._perform(step)
                except HandshakeFailed as error:
                    step = flow.throw(self._diagnosis.explain(error))
                except ConvserveError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            answer: T = done.value
            return answer

    def _perform(self, step: Step) -> Any:
        if isinstance(step, BlockingWork):
            return step.run()
        if isinstance(step, Wait):
            self._closing.wait(step.seconds)
            return self._check_open()
        if isinstance(step, CallSet):
            with self._calling(step.deadline):
                return self._call_all(step)
        with self._calling(step.deadline, step.request.ByteSize):
            return step.method(self._stubs())(
                step.request,
                timeout=step.deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
                metadata=self._sent(step.metadata),
            )

    def _call_all(self, calls: CallSet) -> list[Reply]:
        """Makes all calls of a request, several at one time, and none after a failure."""
        classify = self._stubs().classifier.Classify
        running: dict[int, grpc.Future[classifier_pb2.ClassifyResponse]] = {}
        over: queue.SimpleQueue[int] = queue.SimpleQueue()

        def start(number: int, request: classifier_pb2.ClassifyRequest) -> None:
            call = running[number] = classify.future(
                request,
                timeout=calls.deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
                metadata=self._sent(calls.metadata),
            )
            call.add_done_callback(lambda _: over.put(number))

        try:
            while (replies := calls.replies()) is None:
                for number, request in calls.due():
                    start(number, request)
                try:
                    number = over.get(timeout=calls.wait_s())
                except queue.Empty:
                    continue  # One is to be tried again.
                try:
                    calls.finish(number, running.pop(number).result())
                except grpc.RpcError as error:
                    calls.fail(number, error)
        finally:
            for call in running.values():
                call.cancel()
        return replies

    def _stubs(self) -> Stubs:
        # Not before the first call, so that processes forked before it have each their own.
        forks.use()
        with self._lock:
            self._check_open()
            if self._channel is None:
                self._channel = self._open_channel(grpc)
                self._opened = Stubs(self._channel)
            return self._opened

    @contextmanager
    def _calling(
        self, deadline: Deadline, sent_bytes: Callable[[], int] = lambda: 0
    ) -> Iterator[None]:
        try:
            with self._translated(deadline, sent_bytes):
                yield
        except ValueError as error:
            # What grpc raises if another thread closed the channel since the look above.
            if self._closed and not isinstance(error, ConvserveError):
                raise self._closed_error() from error
            raise

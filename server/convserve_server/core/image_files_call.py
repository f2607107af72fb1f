"""A call with files: decoded beside the engine, then batched; a bad file fails alone."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import numpy as np

from convserve_imaging.errors import PictureError
from convserve_server.core.batch_request import Answer, BatchRequest, Outcome
from convserve_server.core.decode_pool import Decoded, DecodeJob, DecodePool, Pixels
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import BadImage, InternalFault, NotABundle, ServeError
from convserve_server.core.jobs import Priority
from convserve_server.core.models import ModelVersion, VersionChoice
from convserve_server.core.repository import Repository
from convserve_server.telemetry.call_notes import CallNotes


class FilesAnswer(Protocol):
    """What a protocol does with the outcome of a call with files."""

    def begin(self, model: ModelDescription) -> None:
        """Checks the call against the version that will answer.

        Called once more if that version is unloaded on the way.

        Raises:
            ServeError: if that version cannot answer the call.
        """

    def decoded(
        self,
        failures: Mapping[int, ServeError],
        images: Mapping[int, Pixels],
        wait_s: float,
        decode_s: float,
    ) -> None:
        """Notes what became of the files; called before finish().

        Args:
            failures: of the files that have no row, by their index.
            images: of the others, by their index: uint8 [H, W, C] as the model sees them.
            wait_s: before decoding, seconds.
            decode_s: that decoding took, seconds.

        Raises:
            ServeError: if the call is to end with it, and nothing is to be computed.
        """

    def finish(self, outcome: Outcome) -> None:
        """Answers with the rows of the files that have one, in their order, or the error."""


class ImageFilesCall:
    """The Work of a call with files: passes them through the decode pool and the batcher.

    Args:
        model: name of the model that is asked for.
        version: that is asked for, or a label; None for the newest.
        files: one image each, at least one.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        connection: by which the call came; connections take turns.
        priority: of the call; None: that of the model.
        answer: what becomes of the outcome.
        repository: the models.
        decoding: makes pixels of the files.
        notes: of the call; None where nobody wants to know.
    """

    __slots__ = (
        "_answer",
        "_cancelled",
        "_connection",
        "_decoding",
        "_files",
        "_lock",
        "_notes",
        "_priority",
        "_repository",
        "_undo",
        "deadline",
        "model",
        "restarted",
        "version",
    )

    def __init__(
        self,
        model: str,
        version: VersionChoice,
        files: Sequence[bytes],
        deadline: float | None,
        connection: Hashable,
        priority: Priority | None,
        answer: FilesAnswer,
        repository: Repository,
        decoding: DecodePool,
        notes: CallNotes | None = None,
    ) -> None:
        self.model = model
        self.version = version
        self.deadline = deadline
        self.restarted = False
        self._files = files
        self._connection = connection
        self._priority = priority
        self._answer = answer
        self._repository = repository
        self._decoding = decoding
        self._notes = notes
        self._lock = threading.Lock()
        self._cancelled = False
        # While it leads to the files, and they by their outcome back here, this is a circle, which
        # would hold the data of a call that has ended until the next garbage collection.
        self._undo: Callable[[], None] = _nothing

    def start(self, model: ModelVersion) -> None:
        """Queues the files to be decoded for a version.

        Raises:
            ServeError: if the queue is full, or the version cannot answer the call.
        """
        decode = model.decode
        if decode is None:
            raise NotABundle(model.name)
        self._answer.begin(model.description)
        began = time.monotonic()
        if self._notes is not None:
            self._notes.begin(model.batcher.model, len(self._files), began)
        priority = model.priority if self._priority is None else self._priority

        def decoded(outcome: Decoded | ServeError) -> None:
            self._undo = _nothing
            again = self.restarted
            try:
                self._enqueue(model, outcome, began, priority)
            except ServeError as error:
                if self.restarted == again:
                    self._fail(model, error, began)
                else:  # it has begun again on a successor, which has reported it
                    self._answer.finish(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's answer
                self._fail(model, InternalFault("queueing decoded images", error), began)

        job = DecodeJob(self._files, decode, self.deadline, decoded, self._connection, priority)
        # Staged first: once submitted, the next stage may come at any time.
        self._stage(lambda: self._decoding.cancel(job))
        try:
            self._decoding.submit(job, model.batcher)
        except ServeError:
            self._undo = _nothing
            raise

    @property
    def held_bytes(self) -> int:
        """See Work.held_bytes."""
        return sum(map(len, self._files))

    def fail(self, error: ServeError) -> None:
        """See Work.fail."""
        self._answer.finish(error)

    def cancel(self) -> None:
        """Does no more work on the call."""
        with self._lock:
            self._cancelled = True
        self._undo()
        if self._undo is _nothing:
            self._repository.forget(self)

    def _enqueue(
        self, model: ModelVersion, outcome: Decoded | ServeError, began: float, priority: Priority
    ) -> None:
        """Queues what was decoded; answers what was not."""
        if isinstance(outcome, ServeError):
            self._fail(model, outcome, began)
            return
        self._repository.observer.decoded(
            model.batcher.model, len(outcome.images), outcome.wait_s, outcome.decode_s
        )
        if self._notes is not None:
            first = began + outcome.wait_s
            self._notes.decode = began, first, first + outcome.decode_s
        failures = {
            index: BadImage(index, image)
            for index, image in enumerate(outcome.images)
            if isinstance(image, PictureError)
        }
        if failures and len(outcome.images) == 1:
            self._fail(model, failures[0], began)
            return
        images = {
            index: image
            for index, image in enumerate(outcome.images)
            if not isinstance(image, PictureError)
        }
        watch = model.watch
        if watch is not None and images and time.monotonic() >= watch.size_due:
            watch.look_at_file([self._files[index] for index in images])
        self._answer.decoded(failures, images, outcome.wait_s, outcome.decode_s)
        if not images:
            self._report(model, failures[0], began)
            rows = np.empty((0, model.description.classes), np.float32)
            self._answer.finish(Answer(rows, 0.0, 0.0))
            return
        request = BatchRequest(
            _stack(list(images.values())),
            self.deadline,
            self._answer.finish,
            self._connection,
            priority,
            self._notes,
        )
        request.began = began
        if model.batcher.max_wait_s:
            request.start_by = began + model.batcher.max_wait_s
        # If it begins again, the files are decoded again: the successor of the version may expect
        # images of another size.
        if self._repository.enqueue(self, model, request, admitted=True):
            # They are not needed any more, and may be a hundred times the size of the pixels.
            self._files = ()
            self._stage(lambda: model.cancel(request))

    def _fail(self, model: ModelVersion, error: ServeError, began: float) -> None:
        self._report(model, error, began)
        self._answer.finish(error)

    def _report(self, model: ModelVersion, error: ServeError, began: float) -> None:
        """Lets the observer hear that the call ends in an error."""
        self._repository.observer.failed(
            model.batcher.model, error.reason, time.monotonic() - began
        )

    def _stage(self, undo: Callable[[], None]) -> None:
        """Keeps how the work is undone from now on; undoes it if the caller has left already."""
        with self._lock:
            self._undo = undo
            cancelled = self._cancelled
        if cancelled:
            undo()


def _nothing() -> None:
    """Does nothing: there is no work to undo."""


def _stack(images: Sequence[Pixels]) -> Pixels:
    """Returns uint8 [N, H, W, C], contiguous; one image that is so is not copied."""
    if len(images) == 1:
        return np.ascontiguousarray(images[0])[np.newaxis]
    return np.stack(images)

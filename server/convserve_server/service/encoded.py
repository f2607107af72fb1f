"""A call with files: decoded beside the engine, then batched; a bad file fails alone."""

import dataclasses
import threading
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from convserve_imaging.errors import PictureError
from convserve_server.batching.request import Answer, Request
from convserve_server.decode.decoding import Decoded, DecodePool, Files, Pixels
from convserve_server.errors import BadImage, InternalFault, ServeError
from convserve_server.repository import ModelVersion
from convserve_server.service.responses import Responder


class EncodedCall:
    """Leads the files of one call to the batcher, and its answer to the responder.

    Args:
        files: one image each, at least one.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        caller: whose call it is; callers take turns.
        decoding: makes pixels of them.
        choose: the model and who answers; raises ServeError.
    """

    def __init__(
        self,
        files: Sequence[bytes],
        deadline: float | None,
        caller: Hashable,
        decoding: DecodePool,
        choose: Callable[[], tuple[ModelVersion, Responder]],
    ) -> None:
        self._data = files
        self._deadline = deadline
        self._caller = caller
        self._decoding = decoding
        self._choose = choose
        self._lock = threading.Lock()
        self._cancelled = False
        # While it leads to the files, and they by their outcome back here, this is a circle, which
        # would hold the data of a call that has ended until the next garbage collection.
        self._undo: Callable[[], None] = _nothing

    def start(self, *, last: bool = False) -> None:
        """Choose the model and queue the files.

        Args:
            last: whether there is no further attempt if the model is being unloaded meanwhile.

        Raises:
            ServeError: if the model is not there, or the queue is full.
        """
        model, responder = self._choose()

        def decoded(outcome: Decoded | ServeError) -> None:
            self._undo = _nothing
            try:
                self._batch(model, responder, outcome, last)
            except ServeError as error:
                responder(error)
            except Exception as error:  # noqa: BLE001 - the caller must be told, whatever it is
                responder(InternalFault("queueing decoded images", error))

        files = Files(self._data, model.decode, self._deadline, decoded, self._caller)
        # Staged first: once submitted, the next stage may come at any time.
        self._stage(lambda: self._decoding.cancel(files))
        try:
            self._decoding.submit(files, model.batcher.waiting, model.batcher.max_queue)
        except ServeError:
            self._undo = _nothing
            raise

    def cancel(self) -> None:
        """Do no more work on the call."""
        with self._lock:
            self._cancelled = True
        self._undo()

    def _batch(
        self, model: ModelVersion, responder: Responder, outcome: Decoded | ServeError, last: bool
    ) -> None:
        """Queue what was decoded; answer what was not."""
        if isinstance(outcome, ServeError):
            responder(outcome)
            return
        failures = {
            place: BadImage(place, image)
            for place, image in enumerate(outcome.images)
            if isinstance(image, PictureError)
        }
        if failures and len(outcome.images) == 1:
            responder(failures[0])
            return
        responder = dataclasses.replace(
            responder, failures=failures, wait_s=outcome.wait_s, decode_s=outcome.decode_s
        )
        images = [image for image in outcome.images if not isinstance(image, PictureError)]
        if not images:
            responder(Answer(np.empty((0, model.engine.classes), np.float32), 0.0, 0.0))
            return
        work = Request(_stacked(images), self._deadline, responder, self._caller)
        if model.submit(work, last=last, admitted=True):
            # They are not needed any more, and may be a hundred times the size of the pixels.
            self._data = ()
            self._stage(lambda: model.cancel(work))
        else:
            # Unloaded meanwhile; its successor may take images of another size.
            self.start(last=True)

    def _stage(self, undo: Callable[[], None]) -> None:
        """Say how the work is undone from now on, and undo it if the caller has left already."""
        with self._lock:
            self._undo = undo
            cancelled = self._cancelled
        if cancelled:
            undo()


def _nothing() -> None:
    """There is no work to undo."""


def _stacked(images: Sequence[Pixels]) -> Pixels:
    """Returns uint8 [N, H, W, C]; one image is not copied."""
    return images[0][np.newaxis] if len(images) == 1 else np.stack(images)

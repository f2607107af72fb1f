"""From a path to its outcome: reads the file, asks the server, and asks again while it is busy."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from convserve.calls import Question
from convserve.client import Client
from convserve.deadline import Deadline
from convserve.errors import ClientClosed, MessageTooLarge, ServerBusy
from convserve.file_outcomes import OF_ONE_FILE, Answered, FileOutcome, Trouble
from convserve.picture_paths import STDIN, Found
from convserve.pixels import Batch
from convserve_imaging.errors import NotAPictureError

# No camera's file is larger, and as many of these are in memory as there are threads.
MAX_FILE_BYTES = 64 * 2**20

# Where the server is busy and does not say for how long.
BUSY_WAIT_S = 0.5

Prepare = Callable[[bytes], bytes | Batch]
"""Makes of a file what is sent: uint8 [H, W, C], or bytes for the server to decode."""


def preparation(kind: str) -> Prepare:
    """Returns what is done with the files for a model of that kind, as ModelInfo.kind."""
    if kind == "digits":
        # Here, since it brings Pillow, and photographs go to the server as they are.
        from convserve_imaging.digits import centre

        return centre
    return lambda data: data


def read_endless(found: Iterable[Found]) -> Iterator[Found]:
    """Reads what may never end in the caller's thread, where Ctrl-C can end it."""
    for each in found:
        if not each.endless:
            yield each
            continue
        try:
            yield replace(each, data=_read(each.path))
        except OF_ONE_FILE as error:
            yield replace(each, error=error)


class FileClassifier:
    """Classifies one file in each thread that calls it, over a connection of that thread.

    A server has several workers and a connection stays with one of them.
    """

    def __init__(
        self, connect: Callable[[], Client], question: Question, prepare: Prepare, timeout_s: float
    ) -> None:
        self._connect = connect
        self._question = question
        self._prepare = prepare
        self._timeout_s = timeout_s
        self._own = threading.local()
        self._lock = threading.Lock()
        self._clients: list[Client] = []
        self._closed = threading.Event()

    def __call__(self, found: Found) -> FileOutcome:
        """Returns what became of a file.

        Raises:
            ConvserveError: What would befall the next file as well.
        """
        try:
            return FileOutcome(found.path, self._answered(found))
        except OF_ONE_FILE as error:
            return FileOutcome(found.path, Trouble.of(error))

    def close(self) -> None:
        """Closes the connections; calls under way in other threads end soon."""
        self._closed.set()
        with self._lock:
            for client in self._clients:
                client.close()

    def _answered(self, found: Found) -> Answered:
        if found.error is not None:
            raise found.error
        picture = self._prepare(_read(found.path) if found.data is None else found.data)
        deadline = Deadline.after(self._timeout_s)
        timeout_s = self._timeout_s
        while True:
            try:
                return self._ask(picture, timeout_s)
            except ServerBusy as busy:
                wait_s = busy.retry_after_s or BUSY_WAIT_S
                timeout_s = deadline.left_s() - wait_s
                if timeout_s <= 0 or self._closed.wait(wait_s):
                    raise

    def _ask(self, picture: bytes | Batch, timeout_s: float) -> Answered:
        model, version, top_k = self._question.model, self._question.version, self._question.top_k
        client = self._client()
        if isinstance(picture, bytes):
            return Answered(
                client.classify_images(
                    picture, model=model, version=version, top_k=top_k, timeout=timeout_s
                )
            )
        return Answered(
            client.classify(picture, model=model, version=version, top_k=top_k, timeout=timeout_s),
            picture,
        )

    def _client(self) -> Client:
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            with self._lock:
                if self._closed.is_set():
                    raise ClientClosed("the command is ending")
                client = self._own.client = self._connect()
                self._clients.append(client)
        return client


def _read(path: str) -> bytes:
    """Returns all that is in a file.

    Raises:
        NotAPictureError: It is empty.
        MessageTooLarge: It is larger than any picture.
    """
    if path == STDIN:
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    else:
        with open(path, "rb") as file:
            # Of a regular file no more than there is: room is made for what is asked for.
            size = os.fstat(file.fileno()).st_size or MAX_FILE_BYTES
            data = file.read(min(size, MAX_FILE_BYTES) + 1)
    if len(data) > MAX_FILE_BYTES:
        raise MessageTooLarge(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    if not data:
        raise NotAPictureError("not a picture: the file is empty")
    return data

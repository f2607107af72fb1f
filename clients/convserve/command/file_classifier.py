"""From a path to its outcome: reads the file and asks the server."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from convserve.calls import ClassifyOptions
from convserve.client import Client
from convserve.command.file_outcomes import OF_ONE_FILE, Answered, FileOutcome, Trouble
from convserve.command.picture_paths import STDIN, Found
from convserve.command.retrying_caller import RetryingCaller
from convserve.errors import MessageTooLarge
from convserve.pixels import Batch
from convserve_imaging.errors import NotAPictureError

# No camera's file is larger, and as many of these are in memory as there are threads.
MAX_FILE_BYTES = 64 * 2**20

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
        if not each.endless or each.data is not None or each.error is not None:
            yield each
            continue
        try:
            yield replace(each, data=_read(each.path))
        except OF_ONE_FILE as error:
            yield replace(each, error=error)


class FileClassifier:
    """Classifies one file in each thread that calls it."""

    def __init__(self, caller: RetryingCaller, options: ClassifyOptions, prepare: Prepare) -> None:
        self._caller = caller
        self._options = options
        self._prepare = prepare

    def __call__(self, found: Found) -> FileOutcome:
        """Returns what became of a file.

        Raises:
            ConvserveError: What would happen to the next file as well.
        """
        try:
            return FileOutcome(found.path, self._answered(found))
        except OF_ONE_FILE as error:
            return FileOutcome(found.path, Trouble.of(error))

    def _answered(self, found: Found) -> Answered:
        if found.error is not None:
            raise found.error
        picture = self._prepare(_read(found.path) if found.data is None else found.data)
        options = self._options

        def ask(client: Client, timeout_s: float) -> Answered:
            if isinstance(picture, bytes):
                return Answered(
                    client.classify_images(
                        picture,
                        model=options.model,
                        version=options.number,
                        label=options.label,
                        top_k=options.top_k,
                        timeout=timeout_s,
                    )
                )
            return Answered(
                client.classify(
                    picture,
                    model=options.model,
                    version=options.number,
                    label=options.label,
                    top_k=options.top_k,
                    timeout=timeout_s,
                ),
                picture,
            )

        return self._caller.ask(ask)


def _read(path: str) -> bytes:
    """Returns all that is in a file.

    Raises:
        NotAPictureError: It is empty.
        MessageTooLarge: It is larger than any picture.
        OSError: It cannot be read; also standard input that is closed.
    """
    if path == STDIN and sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    if path == STDIN:
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    else:
        with open(path, "rb") as file:
            # Of a regular file no more than there is: read() allocates what it is asked for.
            size = os.fstat(file.fileno()).st_size or MAX_FILE_BYTES
            data = file.read(min(size, MAX_FILE_BYTES) + 1)
    if len(data) > MAX_FILE_BYTES:
        raise MessageTooLarge(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    if not data:
        raise NotAPictureError("not a picture: the file is empty")
    return data

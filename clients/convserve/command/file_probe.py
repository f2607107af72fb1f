"""Reads the first files that a command is given, where their kind decides which model is meant.

Which files a folder gives depends on the model, so this comes before the model is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from convserve.calls import VersionChoice
from convserve.command.file_classifier import read_endless
from convserve.command.picture_paths import Found, find, suffixes_of
from convserve.model_choice import choose_model, describe_images, fits_images
from convserve.models import ModelInfo

# Enough to know what they are: a header, behind whatever a camera wrote before it.
_FILES = 16
_BYTES = 2**20


class FileProbe:
    """Finds the model that the files of some paths mean, and keeps what cannot be read twice."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Reads nothing yet.

        Args:
            paths: Files and folders as for picture_paths.find.
        """
        self._paths = paths
        self._read: list[Found] = []

    def choose_model(self, models: Sequence[ModelInfo], version: VersionChoice) -> str:
        """Returns the name of the model that is meant, where none is named.

        Raises:
            ConvserveError: As model_choice.choose_model.
        """
        # Nothing is read where there is no choice.
        seen = self._heads() if len({model.name for model in models}) > 1 else ()
        if not seen:
            # Nor does the choice matter if nothing can be: every row will say what its file lacks.
            return choose_model(models[:1], version, lambda _: True, "")
        return choose_model(
            models, version, lambda model: fits_images(model, seen), describe_images(seen)
        )

    def with_contents(self, found: Iterable[Found]) -> Iterator[Found]:
        """Yields files with the contents of those that were read already and cannot be again."""
        read = iter(self._read)
        for each in found:
            yield next(read, each) if each.endless else each

    def _heads(self) -> tuple[bytes, ...]:
        """Returns how some files begin: JPEGs of folders, or if there are none their PNGs.

        Most models of photographs pass over a PNG in a folder, so that one decides nothing where
        there are JPEGs. WebPs and GIFs decide where there is nothing else.
        """
        for formats in (("JPEG",), ("JPEG", "PNG"), ("WebP", "GIF")):
            suffixes = suffixes_of(formats)
            readable = (head for each in self._all(suffixes) if (head := _head(each)))
            if heads := tuple(islice(readable, _FILES)):
                return heads
        return ()

    def _all(self, suffixes: tuple[str, ...]) -> Iterator[Found]:
        for each in self.with_contents(find(self._paths, suffixes)):
            if each.endless and each.data is None:
                (each,) = read_endless([each])
                self._read.append(each)
            yield each


def _head(found: Found) -> bytes:
    """Returns how a file begins; nothing if it cannot be read, which its own row will say."""
    if found.data is not None or found.error is not None:
        return (found.data or b"")[:_BYTES]
    try:
        with open(found.path, "rb") as file:
            return file.read(_BYTES)
    except OSError:
        return b""

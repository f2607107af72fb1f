"""Photographs that cannot be read: each is named, all are counted, too many are an error."""

from collections.abc import Mapping
from pathlib import Path

from convserve_imaging.errors import NotAPictureError, PictureError
from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError

NAMED = 5  # in one message


class UnreadablePhotos:
    """Counts them.

    Args:
        folder: of the data, for messages.
        total: photographs, readable or not, 1 or more.
        allowed: share of them that may be lost, 0 to 1.
        hint: what to try where one is a PNG, WebP or GIF that is not read; may be empty.
    """

    def __init__(self, folder: Path, total: int, allowed: float, hint: str = "") -> None:
        self._folder = folder
        self._total = total
        self._allowed = allowed
        self._hint = hint
        self._unreadable: dict[Content, str] = {}
        self._reported = 0

    def add(self, lost: Mapping[Content, Exception]) -> None:
        """Adds photographs, with what reading them raised.

        Raises:
            DataError: they are more than allowed; the message names the first few.
        """
        self._unreadable |= {each: reason(error) for each, error in lost.items()}
        count = len(self._unreadable)
        if count <= self._allowed * self._total:
            return
        raise DataError(
            f"{count:,} of {self._total:,} pictures cannot be read, more than the share of "
            f"{self._allowed:g} that --max-unreadable lets pass: {self._named(0)}"
            + (self._hint if any(map(_is_of_other_format, lost.values())) else "")
            + f"; convserve-train check-data {shown(self._folder)} tells more"
        )

    def notes(self) -> list[str]:
        """Returns a line on those that were added since the last call, or none."""
        reported, self._reported = self._reported, len(self._unreadable)
        if reported == self._reported:
            return []
        return [
            f"{self._reported:,} of {self._total:,} pictures cannot be read and are left out: "
            f"{self._named(reported)}"
        ]

    def _named(self, start: int) -> str:
        lost = list(self._unreadable.items())[start:]
        names = [f"{shown(path)} ({why})" for path, why in lost[:NAMED]]
        return ", ".join(names) + (f" and {len(lost) - NAMED:,} more" if lost[NAMED:] else "")


def _is_of_other_format(error: Exception) -> bool:
    """Returns whether it is about a picture of a format that --formats all reads."""
    named = any(name in str(error) for name in ("PNG", "WebP", "GIF"))
    return isinstance(error, NotAPictureError) and named


def reason(error: Exception) -> str:
    """Returns why a photograph could not be read, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, PictureError) else type(error).__name__

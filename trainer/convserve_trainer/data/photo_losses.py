"""Photographs that cannot be read: each is named, all are counted, too many are an error."""

from collections.abc import Mapping
from pathlib import Path

from convserve_imaging.errors import PictureError
from convserve_trainer.data.passed_over import shown
from convserve_trainer.errors import DataError

NAMED = 5  # in one message


class Losses:
    """Counts them.

    Args:
        folder: of the data, for messages.
        total: photographs, readable or not, 1 or more.
        allowed: share of them that may be lost, 0 to 1.
    """

    def __init__(self, folder: Path, total: int, allowed: float) -> None:
        self._folder = folder
        self._total = total
        self._allowed = allowed
        self._lost: dict[Path, str] = {}
        self._told = 0

    def add(self, lost: Mapping[Path, Exception]) -> None:
        """Adds photographs, with what reading them raised.

        Raises:
            DataError: they are more than allowed; the message names the first few.
        """
        self._lost |= {path: reason(error) for path, error in lost.items()}
        if len(self._lost) <= self._allowed * self._total:
            return
        raise DataError(
            f"{len(self._lost):,} of {self._total:,} pictures cannot be read, more than the share "
            f"of {self._allowed:g} that --max-unreadable lets pass: {self._named(0)}; "
            f"convserve-train check-data {shown(self._folder)} tells more"
        )

    def notes(self) -> list[str]:
        """Returns a line on those that were added since the last call, or none."""
        told, self._told = self._told, len(self._lost)
        if told == self._told:
            return []
        return [
            f"{self._told:,} of {self._total:,} pictures cannot be read and are left out: "
            f"{self._named(told)}"
        ]

    def _named(self, start: int) -> str:
        lost = list(self._lost.items())[start:]
        names = [f"{shown(path)} ({why})" for path, why in lost[:NAMED]]
        return ", ".join(names) + (f" and {len(lost) - NAMED:,} more" if lost[NAMED:] else "")


def reason(error: Exception) -> str:
    """Returns why a photograph could not be read, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, PictureError) else type(error).__name__

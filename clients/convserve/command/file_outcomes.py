"""What became of one file, and why a file has no answer."""

from __future__ import annotations

from dataclasses import dataclass

from convserve.errors import (
    BadImage,
    CannotMeetDeadline,
    ConvserveError,
    DeadlineExceeded,
    MessageTooLarge,
    ServerBusy,
    ServerFault,
)
from convserve.pixels import Batch
from convserve.results import Classification
from convserve_imaging.errors import PictureError

_REASONS: dict[type[ConvserveError], str] = {
    CannotMeetDeadline: "cannot-meet-deadline",
    DeadlineExceeded: "deadline-exceeded",
    MessageTooLarge: "message-too-large",
    ServerBusy: "server-busy",
    ServerFault: "server-fault",
}

NO_FAULT_OF_THE_FILE = (DeadlineExceeded, ServerBusy, ServerFault)

OF_ONE_FILE = (BadImage, MessageTooLarge, *NO_FAULT_OF_THE_FILE, PictureError, OSError)
"""What ends the work on one file; anything else would happen to the next file as well."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer for one file.

    Attributes:
        classification: Of the one image.
        pixels: uint8 [28, 28, 1], the digit that was sent, or None where a file was sent.
    """

    classification: Classification
    pixels: Batch | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer for a file.

    Attributes:
        reason: Its kind, to count and compare: "truncated", "missing", "server-busy".
        message: One line for people.
        code: Name of the gRPC status, or None if the file did not get as far as the server.
        of_server: The file may be good; the server had no answer.
    """

    reason: str
    message: str
    code: str | None = None
    of_server: bool = False

    @classmethod
    def of(cls, error: Exception) -> Trouble:
        """Returns what there is to say of an error that is one of OF_ONE_FILE."""
        if isinstance(error, ConvserveError):
            reason = error.reason if isinstance(error, BadImage) else _REASONS[type(error)]
            code = error.code.name if error.code else None
            return cls(reason, error.message, code, isinstance(error, NO_FAULT_OF_THE_FILE))
        if isinstance(error, PictureError):
            return cls(error.reason, str(error))
        reason = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        strerror = error.strerror if isinstance(error, OSError) else None
        return cls(reason, strerror or str(error))


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """One file and what became of it."""

    file: str
    outcome: Answered | Trouble

"""Why bytes did not become pixels; every message is one line for the sender."""

from typing import ClassVar


class PictureError(ValueError):
    """A picture that cannot be used; the message says why, `reason` names the kind of fault."""

    reason: ClassVar[str] = "unusable"


class NotAPictureError(PictureError):
    """The bytes are another kind of file; the message says what they look like."""

    reason = "not-a-picture"


class UnsupportedPictureError(PictureError):
    """A valid picture of a variety that is not supported."""

    reason = "unsupported"


class DamagedPictureError(PictureError):
    """The picture's data contradict themselves."""

    reason = "damaged"


class TruncatedPictureError(DamagedPictureError):
    """The picture ends before its last pixel, or before its end marker."""

    reason = "truncated"


class TooManyPixelsError(PictureError):
    """The picture is larger than the limit, by its header; it was not decoded."""

    reason = "too-large"


class BlankPictureError(PictureError):
    """Nothing is drawn on the picture."""

    reason = "blank"


class NoDigitError(PictureError):
    """Something is on the picture, but not a digit."""

    reason = "no-digit"


class SeveralDigitsError(PictureError):
    """More than one digit is drawn on the picture."""

    reason = "several"


class DatasetError(Exception):
    """A file of a data set is missing, unreadable, damaged or changed; the message names it."""


class NoFolderError(DatasetError):
    """The folder of a data set does not exist."""

"""A file or folder that was named and is not there: wrong usage, in every command."""

from __future__ import annotations

from convserve.errors import InvalidRequest


class MissingInput(InvalidRequest):
    """What was named is not there; the command ends with exit status 2."""

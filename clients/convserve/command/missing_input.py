"""What a command needs and is not there: wrong usage, in every command."""

from __future__ import annotations

from convserve.errors import ConvserveError, InvalidRequest


class MissingInput(InvalidRequest):
    """What was named is not there; the command ends with exit status 2."""


class MissingPackage(ConvserveError):
    """A package of an extra is not installed; the command ends with exit status 2."""

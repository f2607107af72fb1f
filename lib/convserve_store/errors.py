"""Errors about object storage; each message is one line, as `field: expected X, got Y`."""


class StoreError(Exception):
    """A store cannot be used as it was asked to."""


class StoreUrlError(StoreError):
    """A URL that no store has, or whose client is not installed."""


class ChangedError(StoreError):
    """An object was changed by somebody else since it was read; nothing was written."""

"""Errors about object storage; each message is one line, as `field: expected X, got Y`."""

from convserve_bundle.errors import BundleError


class TooLargeError(BundleError):
    """A version has more bytes than it may have here."""


class StoreError(Exception):
    """A store cannot be used as it was asked to."""


class StoreUrlError(StoreError):
    """A URL that no store has, or whose client is not installed."""


class AccessError(StoreError):
    """No credentials, no bucket, or not allowed: it does not help to try again."""


class ChangedError(StoreError):
    """An object was changed by somebody else since it was read; nothing was written."""

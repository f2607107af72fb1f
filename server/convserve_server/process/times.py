"""The times of batches, as the first worker that loaded a bundle has measured them."""

from collections.abc import Mapping
from typing import Protocol

from convserve_server.core.tables import Bundle


class TimesByBundle(Protocol):
    """Keeps the seconds that the batches of a bundle take, by their size in images."""

    def get(self, bundle: Bundle) -> Mapping[int, float]:
        """Returns what is known; empty if nothing is."""

    def put(self, bundle: Bundle, batch_s: Mapping[int, float]) -> None:
        """Keeps what was measured."""


class TimesInMemory:
    """Keeps them as long as the server runs, by the digest of the file."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[int, float]] = {}

    def get(self, bundle: Bundle) -> Mapping[int, float]:
        """See TimesByBundle.get."""
        return self._known.get(bundle.digest, {})

    def put(self, bundle: Bundle, batch_s: Mapping[int, float]) -> None:
        """See TimesByBundle.put."""
        self._known[bundle.digest] = batch_s

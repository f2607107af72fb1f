"""The times of batches, as the first worker that loaded a bundle has measured them."""

from collections.abc import Mapping
from typing import Protocol

from convserve_server.core.tables import Bundle
from convserve_server.process.time_store import TimesKey, TimeStore
from convserve_server.settings.settings import Settings


class TimesByBundle(Protocol):
    """Keeps the seconds that the batches of a bundle take, by their size in images."""

    def get(self, bundle: Bundle) -> Mapping[int, float]:
        """Returns what is known; empty if nothing is."""

    def put(self, bundle: Bundle, batch_s: Mapping[int, float]) -> None:
        """Keeps what was measured."""


class StoredTimes:
    """Keeps them in a store, by what they depend on.

    Args:
        store: That keeps them.
        settings: With sizes chosen; may be replaced.
    """

    def __init__(self, store: TimeStore, settings: Settings) -> None:
        self._store = store
        #: By which models are loaded.
        self.settings = settings

    def get(self, bundle: Bundle) -> Mapping[int, float]:
        """See TimesByBundle.get."""
        return self._store.get(self._key(bundle))

    def put(self, bundle: Bundle, batch_s: Mapping[int, float]) -> None:
        """See TimesByBundle.put."""
        self._store.put(self._key(bundle), batch_s)

    def _key(self, bundle: Bundle) -> TimesKey:
        model = self.settings.for_model(bundle.name)
        return TimesKey(
            bundle.digest, model.device, model.engine, model.engine_threads, model.max_batch
        )

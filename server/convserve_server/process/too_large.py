"""Versions that are refused because there is no memory for them, until there is."""

import logging

from convserve_server.core.tables import Bundle
from convserve_server.process.memory_check import MemoryCheck
from convserve_server.process.refusals import Refusals
from convserve_server.process.wishes import Wishes

log = logging.getLogger(__name__)


class TooLarge:
    """Refuses bundles by their memory, and allows them again. Not thread-safe.

    Args:
        memory: Says what fits.
        wishes: Know the files.
        refusals: Of all bundles.
    """

    def __init__(self, memory: MemoryCheck, wishes: Wishes, refusals: Refusals) -> None:
        self._memory = memory
        self._wishes = wishes
        self._refusals = refusals
        # With the bytes by which a worker grew when it loaded them; 0 if none has.
        self._refused: dict[Bundle, int] = {}

    def refuse_first(self, bundle: Bundle) -> bool:
        """Refuses a bundle that no worker should load; returns whether it does."""
        why = self._memory.refusal_of_first(self._wishes.file_bytes(bundle))
        return self._refuse(bundle, 0, why)

    def refuse_others(self, bundle: Bundle, loaded_bytes: int, others: int) -> bool:
        """Refuses a bundle that one worker has loaded, and the others cannot.

        Args:
            bundle: That it has loaded.
            loaded_bytes: By which it has grown.
            others: Workers that do not have it.

        Returns: Whether it is refused.
        """
        file_bytes = self._wishes.file_bytes(bundle)
        why = self._memory.refusal_of_others(file_bytes, loaded_bytes, others)
        return self._refuse(bundle, loaded_bytes, why)

    def try_again(self, workers: int) -> None:
        """Allows bundles again for which there is memory by now, in so many workers at once."""
        for bundle, loaded_bytes in list(self._refused.items()):
            if self._wishes.file(bundle) is not None:
                file_bytes = self._wishes.file_bytes(bundle)
                if self._memory.refusal_of_first(file_bytes):
                    continue
                if self._memory.refusal_of_others(file_bytes, loaded_bytes, workers):
                    continue
            del self._refused[bundle]
            self._refusals.forgive(bundle.digest)

    def _refuse(self, bundle: Bundle, loaded_bytes: int, why: str) -> bool:
        if not why:
            return False
        if bundle not in self._refused:
            log.error("%s is not served: %s", bundle, why)
        self._refused[bundle] = loaded_bytes
        self._refusals.refuse(bundle, why)
        return True

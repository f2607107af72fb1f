"""Which files cannot be served. Kept by the SHA-256 of the file, for as long as the server runs.

So a worker that is started again does not load what ended the one before it, under any name.
"""

import logging
from collections import Counter
from collections.abc import Sequence

from convserve_server.core.tables import Bundle

log = logging.getLogger(__name__)

#: Deaths without a known cause while a bundle is loaded, until it is held to be the cause.
_MOST_CHANCES = 2


class Refusals:
    """What is known of files. Not thread-safe."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._unexplained: Counter[str] = Counter()
        self._replaced: set[Bundle] = set()

    def reason(self, digest: str) -> str | None:
        """Returns why a file is refused; None if it is not."""
        return self._reasons.get(digest)

    def refuse(self, bundle: Bundle, reason: str) -> None:
        """Notes that a bundle cannot be served."""
        self._reasons[bundle.digest] = reason

    def forgive(self, digest: str) -> None:
        """Forgets that a file was refused: the cause is gone."""
        self._reasons.pop(digest, None)

    def ended(self, bundles: Sequence[Bundle], how: str, *, known: bool) -> list[Bundle]:
        """Notes that a worker has died or was killed while it loaded bundles.

        Args:
            bundles: That it was loading.
            how: It ended.
            known: Whether the bundle is the cause. If that is not sure, it has another chance.

        Returns: What is refused from now on.
        """
        refused = []
        for bundle in bundles:
            self._unexplained[bundle.digest] += 1
            if known or self._unexplained[bundle.digest] >= _MOST_CHANCES:
                self._reasons[bundle.digest] = f"the worker that loaded it {how}"
                log.error(
                    "%s is not served: the worker that loaded it %s; refused until its file "
                    "changes (SHA-256 %s)",
                    bundle, how, bundle.digest[:12],
                )  # fmt: skip
                refused.append(bundle)
        return refused

    def report_replaced(self, served: Bundle, digest: str) -> None:
        """Logs, once, that the file of a version that is served is another one now."""
        now = Bundle(served.name, served.version, digest)
        if now in self._replaced:
            return
        self._replaced.add(now)
        log.error(
            "%s: its file was replaced: expected the one served first, SHA-256 %s, got %s; a "
            "version never changes, publish this one as another version",
            served, served.digest[:12], digest[:12],
        )  # fmt: skip

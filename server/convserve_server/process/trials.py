"""Which bundles may be loaded. Each is tried by one worker first; no other tries what ends it.

    unknown ──asked──▶ tried by one worker ──loaded──▶ good ──▶ every worker may load it
                                           └─failed, died, hung──▶ refused, for all

Kept by the SHA-256 of the file in the supervisor, so that a worker that is started again does not
load what killed the one before it. A file that changes under the name and version that are served
is refused as well: half of the workers would answer with another model.
"""

import logging
from collections import Counter
from collections.abc import Hashable, Sequence

from convserve_server.core.permits import Bundle, Verdict

log = logging.getLogger(__name__)

#: Deaths without a known cause while a bundle is loaded, until it is held to be the cause.
_MOST_CHANCES = 2


class Trials:
    """What is known of bundles. Not thread-safe."""

    def __init__(self) -> None:
        # By digest: the worker that tries it.
        self._tried_by: dict[str, Hashable] = {}
        self._good: set[str] = set()
        self._refused: dict[str, str] = {}
        self._unexplained: Counter[str] = Counter()
        # The digest that was first served under a name and version.
        self._published: dict[tuple[str, int], str] = {}
        self._replaced: set[Bundle] = set()
        # Entries of the models folder that are not served, and why; "" is the folder.
        self._problems: dict[str, str] = {}
        # What each worker has loaded.
        self._serving: dict[Hashable, frozenset[Bundle]] = {}

    def ask(self, worker: Hashable, bundle: Bundle) -> Verdict:
        """Returns whether a worker may load a bundle now; if so it must report how that ended."""
        published = self._published.get((bundle.name, bundle.version), bundle.digest)
        if published != bundle.digest:
            return Verdict(bundle, "refused", self._replacement(bundle, published))
        if bundle.digest in self._refused:
            return Verdict(bundle, "refused", self._refused[bundle.digest])
        if bundle.digest in self._good:
            return Verdict(bundle, "load")
        by = self._tried_by.setdefault(bundle.digest, worker)
        return Verdict(bundle, "load" if by == worker else "wait")

    def loaded(self, worker: Hashable, bundle: Bundle) -> None:
        """Notes that a worker has loaded a bundle: all others may."""
        del worker
        self._tried_by.pop(bundle.digest, None)
        self._good.add(bundle.digest)
        self._published.setdefault((bundle.name, bundle.version), bundle.digest)

    def failed(self, worker: Hashable, bundle: Bundle, reason: str) -> None:
        """Notes that a worker could not load a bundle; if it was the first to try, none will."""
        if self._tried_by.get(bundle.digest) == worker:
            self._refuse(bundle.digest, reason)

    def serves(self, worker: Hashable, bundles: frozenset[Bundle]) -> None:
        """Notes what a worker has loaded; a version that it unloads may be published anew."""
        before = self._serving.get(worker, frozenset())
        self._serving[worker] = bundles
        still = {one for bundles in self._serving.values() for one in bundles}
        for bundle in before - still:
            self._published.pop((bundle.name, bundle.version), None)

    def ended(
        self, worker: Hashable, bundles: Sequence[Bundle], reason: str, *, known: bool
    ) -> list[Bundle]:
        """Notes that a worker has died or was killed.

        Args:
            worker: That ended.
            bundles: That it was loading.
            reason: How it ended.
            known: Whether the bundle is the cause. If that is not sure, it has another chance.

        Returns: What is refused from now on.
        """
        self._serving.pop(worker, None)
        refused = []
        for bundle in bundles:
            if self._tried_by.get(bundle.digest) != worker:
                continue
            self._unexplained[bundle.digest] += 1
            if known or self._unexplained[bundle.digest] >= _MOST_CHANCES:
                self._refuse(bundle.digest, f"the worker that loaded it first {reason}")
                refused.append(bundle)
            else:
                del self._tried_by[bundle.digest]
        return refused

    def problem(self, entry: str, problem: str) -> None:
        """Logs what is wrong with an entry of the models folder, once for all workers."""
        if problem and self._problems.get(entry) != problem:
            log.error("%s%s", f"{entry}: " if entry else "", problem)
        self._problems[entry] = problem
        if not problem:
            del self._problems[entry]

    def missing(self, worker: Hashable) -> tuple[str, ...]:
        """Returns the names of the models that other workers serve and this one does not."""
        own = {bundle.name for bundle in self._serving.get(worker, ())}
        others = {
            bundle.name
            for other, bundles in self._serving.items()
            for bundle in bundles
            if other != worker
        }
        return tuple(sorted(others - own))

    def _refuse(self, digest: str, reason: str) -> None:
        self._tried_by.pop(digest, None)
        self._refused[digest] = reason

    def _replacement(self, bundle: Bundle, published: str) -> str:
        reason = (
            f"its file was replaced: expected the one served first, SHA-256 {published[:12]}, got "
            f"{bundle.digest[:12]}; a version never changes, publish this one as another version"
        )
        if bundle not in self._replaced:
            self._replaced.add(bundle)
            log.error("%s: %s", bundle, reason)
        return reason

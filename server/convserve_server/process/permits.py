"""Who allows a repository to load a bundle: the supervisor of several workers, or nobody."""

from typing import Protocol

from convserve_server.process.messages import Bundle, Verdict
from convserve_server.process.trials import Trials


class Permits(Protocol):
    """What a repository asks and reports about bundles."""

    def ask(self, bundle: Bundle, patience_s: float) -> Verdict:
        """Returns whether a bundle may be loaded; waits at most so long while another tries it."""

    def loaded(self, bundle: Bundle) -> None:
        """It is loaded and warm."""

    def failed(self, bundle: Bundle, reason: str) -> None:
        """It cannot be served."""

    def serves(self, bundles: tuple[Bundle, ...]) -> None:
        """All that is loaded now."""

    def problem(self, entry: str, problem: str) -> None:
        """An entry of the models folder is not served, or, if empty, is no problem any more."""


class SingleProcess:
    """The permits of a process without a supervisor: it tries everything itself."""

    def __init__(self) -> None:
        self._trials = Trials()

    def ask(self, bundle: Bundle, patience_s: float) -> Verdict:
        """See Permits.ask."""
        del patience_s
        return self._trials.ask(0, bundle)

    def loaded(self, bundle: Bundle) -> None:
        """See Permits.loaded."""
        self._trials.loaded(0, bundle)

    def failed(self, bundle: Bundle, reason: str) -> None:
        """See Permits.failed."""
        self._trials.failed(0, bundle, reason)

    def serves(self, bundles: tuple[Bundle, ...]) -> None:
        """See Permits.serves."""
        self._trials.serves(0, frozenset(bundles))

    def problem(self, entry: str, problem: str) -> None:
        """See Permits.problem."""
        self._trials.problem(entry, problem)

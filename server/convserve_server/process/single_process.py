"""The permits of a process without a supervisor: it tries every bundle itself."""

from convserve_server.core.permits import Bundle, Verdict
from convserve_server.process.trials import Trials


class SingleProcess:
    """See Permits."""

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

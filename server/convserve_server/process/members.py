"""What a control plane knows of each worker."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from convserve_server.core.tables import Bundle


@dataclass
class Member:
    """A worker that can load models.

    Attributes:
        key: By which the control plane and its owner name it.
        heard: When it last reported which models calls have used.
        admitted: It may accept calls, so it has to change tables with the others.
        leaving: It finishes what it has accepted, and is asked for nothing more.
        preparing: What it was sent to load, and when.
        loading: What of it it has begun to load, and when.
        prepared: What it has loaded.
        retiring: What it unloads.
        failed: What it could not load although others serve it, and when.
        lacking: Models that others serve and that it cannot load at present.
        sent: Number of the last table that it was sent.
        staged: Number of the last table that it has.
        since: When it was sent that table, or had last loaded something after it.
    """

    key: Hashable
    heard: float = 0.0
    admitted: bool = False
    leaving: bool = False
    preparing: dict[Bundle, float] = field(default_factory=dict)
    loading: dict[Bundle, float] = field(default_factory=dict)
    prepared: set[Bundle] = field(default_factory=set)
    retiring: set[Bundle] = field(default_factory=set)
    failed: dict[Bundle, float] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    sent: int = 0
    staged: int = 0
    since: float = 0.0

    def may_load(self, now: float, patience_s: float) -> bool:
        """Returns whether it loads nothing, or only what has taken it longer than patience_s."""
        return not self.leaving and all(
            now - since > patience_s for since in self.preparing.values()
        )

    def excuse(self, late_s: float) -> None:
        """Does not count time against it in which its messages could not be read."""
        self.since += late_s
        self.preparing = {bundle: since + late_s for bundle, since in self.preparing.items()}
        self.loading = {bundle: since + late_s for bundle, since in self.loading.items()}

"""Who allows a repository to load a bundle: the supervisor of several workers, or nobody."""

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Bundle:
    """A version of a model, and what its file holds.

    Attributes:
        name: of the model.
        version: of the model.
        digest: SHA-256 of the model file, hexadecimal.
    """

    name: str
    version: int
    digest: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True)
class Verdict:
    """Whether a bundle may be loaded: yes, not yet (another worker tries it first), or never.

    Attributes:
        bundle: that was asked for.
        verdict: the answer.
        reason: of a refusal.
    """

    bundle: Bundle
    verdict: Literal["load", "wait", "refused"]
    reason: str = ""


class Permits(Protocol):
    """What a repository asks and reports about bundles."""

    def ask(self, bundle: Bundle, patience_s: float) -> Verdict:
        """Returns whether the bundle may be loaded; waits at most so long while another tries."""

    def loaded(self, bundle: Bundle) -> None:
        """Notes that the bundle is loaded and warm."""

    def failed(self, bundle: Bundle, reason: str) -> None:
        """Notes that the bundle cannot be served."""

    def serves(self, bundles: tuple[Bundle, ...]) -> None:
        """Notes all that is loaded now."""

    def problem(self, entry: str, problem: str) -> None:
        """Notes why an entry of the models folder is not served; empty if that is over."""

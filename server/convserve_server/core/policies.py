"""What the operator wants of a model: which versions are served, under which labels, and when."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from convserve_bundle.contract import STABLE

#: Which versions of a model are served: so many of the newest, all, or these.
VersionPolicy = int | Literal["all"] | tuple[int, ...]

#: What has a model loaded and unloaded: what is in the folder, as it changes ("poll") or as it was
#: when the server started ("none"), or only what an operator asks for ("explicit").
Control = Literal["poll", "explicit", "none"]

#: What has a new version answer the calls that ask for none: that it is loaded ("newest"), or that
#: the label "stable" has moved to it ("label").
Rollout = Literal["newest", "label"]


@dataclass(frozen=True)
class ModelPolicy:
    """What the operator wants of a model; see settings.

    Attributes:
        versions: that are served.
        labels: the version that each label names; it has no effect while that is not loaded.
        control: what has versions loaded and unloaded.
        unload_after_s: that nobody has asked for the model, after which it is unloaded until the
            next call; 0: never.
        rollout: what has a new version answer calls that ask for none. With "label" the labels are
            those of the file beside the versions, not these.
    """

    versions: VersionPolicy = 1
    labels: Mapping[str, int] = field(default_factory=dict)
    control: Control = "poll"
    unload_after_s: float = 0.0
    rollout: Rollout = "newest"

    @property
    def default_label(self) -> str:
        """The label whose version answers calls that ask for none; empty: the newest does."""
        return STABLE if self.rollout == "label" else ""

    def select(self, usable: Collection[int], labelled: Collection[int] = ()) -> tuple[int, ...]:
        """Returns the versions to serve, newest first.

        Args:
            usable: the versions that are there and can be served.
            labelled: versions that labels name, or named before; they are served as well.
        """
        newest = tuple(sorted(set(usable), reverse=True))
        if self.versions == "all":
            return newest
        if isinstance(self.versions, int):
            wanted = {*newest[: self.versions], *labelled}
        else:
            wanted = {*self.versions, *labelled}
        return tuple(version for version in newest if version in wanted)

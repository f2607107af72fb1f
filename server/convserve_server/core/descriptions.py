"""What there is to know of a version that was loaded, without the version itself."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class ModelDescription:
    """What a caller may know of a version; light, so that others may keep it.

    Attributes:
        name: of the model.
        version: of the model.
        labels: of its classes, in the order of the probabilities.
        image_shape: one image, (H, W, C).
        classes: how many, K.
        provider: name of the execution provider.
        manifest: a serialized convserve Manifest.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    classes: int
    provider: str
    manifest: bytes

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, eq=False)
class Findings:
    """What a worker has found out by loading a version.

    Attributes:
        description: for callers.
        batch_s: seconds that a batch takes, by its size in images; empty if not measured.
        memory_bytes: by which the worker has grown; 0 if that is not known.
    """

    description: ModelDescription
    batch_s: Mapping[int, float]
    memory_bytes: int

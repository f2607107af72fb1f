"""What there is to know of a version that was loaded, without the version itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from convserve_bundle.contract import INPUT, OUTPUT
from convserve_server.engines.signatures import OPEN, Signature, TensorSpec


@dataclass(frozen=True, eq=False)
class ModelDescription:
    """What a caller may know of a version; light, so that others may keep it.

    Attributes:
        name: of the model.
        version: of the model.
        labels: of its classes, in the order of the probabilities; of a bundle.
        image_shape: one image, (H, W, C); of a bundle.
        classes: how many, K; of a bundle.
        provider: name of the execution provider.
        manifest: a serialized convserve Manifest; empty if it is another ONNX file.
        signature: its inputs and outputs.
        max_batch: maximum batch size, rows; 1 if it is not batched.
        thresholds: see LoadedModel; empty if it is not a bundle.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    classes: int
    provider: str
    manifest: bytes
    signature: Signature
    max_batch: int
    thresholds: tuple[float, ...] = ()

    @property
    def is_bundle(self) -> bool:
        """Whether it classifies images, as its manifest says."""
        return bool(self.manifest)

    @cached_property
    def key(self) -> str:
        """The same as str(), made once: every call needs it."""
        return str(self)

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def signature_of_images(image_shape: tuple[int, int, int], classes: int) -> Signature:
    """Returns the signature of a bundle.

    Args:
        image_shape: one image, (H, W, C).
        classes: how many, K.
    """
    return Signature(
        (TensorSpec(INPUT, "UINT8", (OPEN, *image_shape)),),
        (TensorSpec(OUTPUT, "FP32", (OPEN, classes)),),
        batched=True,
    )


@dataclass(frozen=True, eq=False)
class Findings:
    """What a worker has found out by loading a version.

    Attributes:
        description: for callers.
        batch_s: seconds that a batch takes, by its size in images; empty if not measured.
        memory_bytes: by which the worker has grown; 0 if that is not known.
        advice: for the log; see LoadedModel.
    """

    description: ModelDescription
    batch_s: Mapping[int, float]
    memory_bytes: int
    advice: str = ""

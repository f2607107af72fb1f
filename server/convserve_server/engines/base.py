"""What every engine is, without ONNX Runtime: the contract between engines and the core."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convserve_bundle.stability import Known
from convserve_server.engines.signatures import Signature
from convserve_server.engines.tensors import Tensors
from convserve_server.host.spare_cpus import SpareCpus

#: Execution providers of ONNX Runtime.
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
#: One more for the CPU, of a plug-in.
OPENVINO = "OpenVINOExecutionProvider"

Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

#: What a request brings, and what it gets: of bundles bare arrays, of other models tensors. Both
#: have rows, and can be cut into slices of them.
Inputs = Pixels | Tensors
Outputs = Probabilities | Tensors

#: The times of batches where there are none.
NOT_MEASURED: Mapping[int, float] = MappingProxyType({})


class EngineError(Exception):
    """The model or the device cannot be used as asked; str() says why and what to do."""


class InputsRefused(Exception):
    """The model cannot compute the values that it was given; str() says why."""


class Engine(Protocol):
    """What runs a bundle.

    Attributes:
        provider: name of the execution provider.
        image_shape: one image, (H, W, C).
        classes: how many, K.
        max_batch: maximum batch size, images.
        parallel: batches that run() accepts at the same time, from several threads.
        spare: CPUs on which it runs more of them while they are idle; None: on none.
        metadata: of the ONNX file.
    """

    provider: str
    image_shape: tuple[int, int, int]
    classes: int
    max_batch: int
    parallel: int
    spare: SpareCpus | None
    metadata: dict[str, str]

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """Classifies a batch, given as slices uint8 [n, H, W, C], max_batch images at the most.

        Each slice is contiguous.

        Returns: float32 [sum of n, K], a new array, rows in the order of the images.
        """

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        """Chooses max_batch and runs every shape once, so that no request pays for the first run.

        Args:
            batch_s: seconds that a batch takes, by its size in images, as the same file has taken
                on the same device with as many threads; empty to measure them.

        Returns: batch_s, or what was measured.
        """


class TensorEngine(Protocol):
    """What runs a model that is not a bundle.

    Attributes:
        provider: name of the execution provider.
        signature: inputs and outputs; final after warm_up().
        max_batch: maximum batch size, rows; 1 if the model is not batched.
        parallel: batches that run() accepts at the same time, from several threads.
        spare: CPUs on which it runs more of them while they are idle; None: on none.
    """

    provider: str
    signature: Signature
    max_batch: int
    parallel: int
    spare: SpareCpus | None

    def run(self, parts: Sequence[Tensors]) -> Tensors:
        """Runs a batch, given as slices, max_batch rows at the most; if not batched, one request.

        Returns: the outputs, in the order of the signature, with as many rows.

        Raises:
            InputsRefused: the model cannot compute these values.
        """

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        """Finds out whether rows are independent, and chooses max_batch; see Engine.warm_up.

        Returns: batch_s, or what was measured; empty where the sizes of requests may vary.
        """


@dataclass(frozen=True)
class LoadedModel:
    """A bundle that is warm and whose outputs were checked.

    Attributes:
        engine: that runs it.
        labels: of its classes, in their order.
        decoding: name of the method that makes pixels of files; see convserve_imaging.
        manifest: of its bundle, a serialized convserve Manifest, for those who show it.
        batch_s: seconds that a batch takes, by its size in images, as measured at warm-up; empty if
            nothing was measured.
        advice: what its publisher can do for it to be faster, for the log; empty if nothing.
        thresholds: of a model whose images have several labels, in the order of the labels: an
            image has each one whose probability is this or more; otherwise empty.
        known: what the pictures of its training are like, by the names of the measures; empty if
            its manifest does not say.
    """

    engine: Engine
    labels: tuple[str, ...]
    decoding: str
    manifest: bytes
    batch_s: Mapping[int, float] = field(default_factory=lambda: NOT_MEASURED)
    advice: str = ""
    thresholds: tuple[float, ...] = ()
    known: Mapping[str, Known] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedTensorModel:
    """A model that is not a bundle, and is warm.

    Attributes:
        engine: that runs it.
        batch_s: see LoadedModel.
        advice: see LoadedModel.
    """

    engine: TensorEngine
    batch_s: Mapping[int, float] = field(default_factory=lambda: NOT_MEASURED)
    advice: str = ""


Loaded = LoadedModel | LoadedTensorModel

"""What the rows of a model must be, by its manifest.

A net whose weights are damaged gives others, and answers that look like any.
"""

import numpy as np
from numpy.typing import NDArray

from convserve_bundle.errors import BundleError
from convserve_bundle.manifest import is_softmax
from convserve_protos.bundle_pb2 import PRECISION_FLOAT16, Manifest

#: How far the sum of a row may be from 1: rounding of K float32 numbers, and of float16 ones.
_BOUND, _HALF_BOUND = 1e-3, 1e-2

#: Seed of the images that a net is tried on.
_SEED = 20_260_101


def probes(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Returns images that a net is tried on: black, white, noise and a gradient.

    Args:
        shape: of an image, (H, W, C).

    Returns: uint8 [4, H, W, C].
    """
    noise = np.random.default_rng(_SEED).integers(0, 256, shape, np.uint8)
    gradient = np.linspace(0, 255, int(np.prod(shape))).astype(np.uint8).reshape(shape)
    return np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise, gradient])


def check_outputs(manifest: Manifest, rows: NDArray[np.float32]) -> None:
    """Checks the rows that a net has given.

    Args:
        manifest: of the bundle.
        rows: float32 [N, K].

    Raises:
        BundleError: if they are not what its outputs are by the manifest.
    """
    bound = _HALF_BOUND if manifest.precision == PRECISION_FLOAT16 else _BOUND
    _check_probabilities(rows, bound)
    if is_softmax(manifest):
        _check_sums(rows, bound)


def _check_probabilities(rows: NDArray[np.float32], bound: float) -> None:
    """Checks that each number is a probability."""
    if not np.isfinite(rows).all():
        raise BundleError(
            "probabilities: expected finite numbers, got "
            f"{int((~np.isfinite(rows)).sum())} of {rows.size} that are not"
        )
    low, high = float(rows.min()), float(rows.max())
    if low < -bound or high > 1 + bound:
        raise BundleError(f"probabilities: expected 0 to 1, got {low:g} to {high:g}")


def _check_sums(rows: NDArray[np.float32], bound: float) -> None:
    """Checks that each row is a distribution: the classes of the net exclude each other."""
    sums = rows.sum(axis=1, dtype=np.float64)
    worst = float(sums[np.abs(sums - 1).argmax()])
    if abs(worst - 1) > bound:
        raise BundleError(f"probabilities: expected rows that sum to 1, got a sum of {worst:g}")

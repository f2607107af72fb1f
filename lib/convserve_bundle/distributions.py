"""Distributions of a value, as manifests state them; how far two are apart is in stability.py."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from convserve_bundle.errors import BundleError
from convserve_bundle.stability import BINS, MEASURES, Known
from convserve_imaging.measures import rounded
from convserve_protos.bundle_pb2 import Distribution, PictureStatistics


def summarise(values: npt.NDArray[np.floating]) -> Distribution:
    """Returns the distribution of values.

    Args:
        values: float [N], one or more, finite.
    """
    known = rounded(values)
    edges = np.quantile(known, np.arange(1, BINS + 1) / BINS).astype(np.float32)
    below = np.nextafter(known.min(), np.float32(-np.inf))
    bounds = np.unique(np.append(edges, below))
    return Distribution(
        bounds=bounds.tolist(),
        counts=_counted(known, bounds).tolist(),
        mean=float(values.mean(dtype=np.float64)),
        standard_deviation=float(values.std(dtype=np.float64)),
    )


def counted(values: npt.NDArray[np.floating], bounds: Iterable[float]) -> npt.NDArray[np.int64]:
    """Returns how many values are in each bin, int64 [bounds + 1].

    Args:
        values: float [N].
        bounds: see Distribution.
    """
    return _counted(rounded(values), np.array(list(bounds), np.float32))


def known_of(statistics: PictureStatistics) -> dict[str, Known]:
    """Returns the distributions that a manifest states, by their names, of MEASURES.

    Raises:
        BundleError: one of them is none: it has other bins than it should.
    """
    found = {}
    for name in MEASURES:
        if statistics.HasField(name):  # type: ignore[arg-type]  # one of its fields
            stated: Distribution = getattr(statistics, name)
            found[name] = Known(tuple(stated.bounds), tuple(stated.counts))
            _check(f"statistics.{name}", found[name])
    return found


def _check(name: str, known: Known) -> None:
    bounds, counts = known
    if not 0 < len(bounds) <= BINS + 1:
        raise BundleError(f"{name}.bounds: expected 1 to {BINS + 1}, got {len(bounds)}")
    if len(counts) != len(bounds) + 1:
        raise BundleError(f"{name}.counts: expected {len(bounds) + 1}, got {len(counts)}")
    if not np.isfinite(bounds).all() or (np.diff(bounds) <= 0).any():
        raise BundleError(f"{name}.bounds: expected finite and ascending ones, got {bounds}")
    if not sum(counts):
        raise BundleError(f"{name}.counts: expected pictures, got none")


def _counted(
    values: npt.NDArray[np.float32], bounds: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    return np.bincount(np.searchsorted(bounds, values, "left"), minlength=len(bounds) + 1)

"""The topics by name, and how much of the whole time each takes."""

from collections.abc import Callable, Mapping

from convserve_trainer.html.section import Section
from convserve_trainer.lecture.scales import Scale

NAMES = (
    *("convnet", "convolution", "kernels", "pooling", "activations", "shift", "training", "data"),
    *("errors", "calibration", "jpegs"),
)

#: Seconds on two CPUs, for the lecture's net; only their proportions matter.
_STEP, _DENSE_STEP, _DIGIT = 0.016, 0.003, 0.0003


def find(name: str) -> "Callable[..., Section]":
    """Returns what makes the section of a topic, from a `Material`."""
    from convserve_trainer.lecture import (
        activations,
        calibration,
        convolution,
        data_size,
        jpegs,
        kernels,
        mistakes,
        pooling,
        shift,
        sketch,
        training,
    )

    modules = (
        *(sketch, convolution, kernels, pooling, activations, shift, training, data_size),
        *(mistakes, calibration, jpegs),
    )
    found: dict[str, Callable[..., Section]] = {
        module.TOPIC: module.make_section for module in modules
    }
    return found[name]


def costs(scale: Scale, epochs: int) -> Mapping[str, float]:
    """Returns about how many seconds each topic takes.

    Args:
        scale: of the lecture.
        epochs: that the user's net was trained.
    """
    passes = (scale.epochs or epochs) * 60_000 / 64
    trainings = len(scale.sizes) * scale.seeds
    return {
        "convnet": 1,
        "convolution": 2,
        "kernels": 2,
        "pooling": 4,
        "activations": 6 + scale.ascents * 0.1 + scale.searched * 6 * _DIGIT,
        "shift": passes * _DENSE_STEP + scale.shifted * 34 * _DIGIT,
        "training": 1,
        "data": trainings * (scale.steps * (_STEP + _DENSE_STEP) + 10_000 * _DIGIT),
        "errors": 5,
        "calibration": passes * _STEP + 5,
        "jpegs": 2,
    }

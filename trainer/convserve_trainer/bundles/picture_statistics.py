"""What pictures a net knows: stated in its manifest, to compare others with."""

import numpy as np

from convserve_bundle import distributions
from convserve_protos.bundle_pb2 import PictureStatistics
from convserve_trainer.datasets.pictures import Pictures
from convserve_trainer.evaluation import traits
from convserve_trainer.evaluation.predict import Probabilities

#: Pictures that are looked at, at most, evenly from all: more would not change the bins.
MOST = 10_000


def of_pictures(train: Pictures) -> PictureStatistics:
    """Returns brightness, contrast and size of pictures that are trained on.

    Args:
        train: one or more.

    Raises:
        DataError: too many pictures cannot be read.
    """
    count = min(len(train), MOST)
    numbers = np.linspace(0, len(train) - 1, count).round().astype(np.int64)
    found = traits.measure(train, numbers)
    return PictureStatistics(
        **{name: distributions.summarise(values) for name, values in found.items()}
    )


def state_confidence(statistics: PictureStatistics, probabilities: Probabilities) -> None:
    """States how sure a net is.

    Args:
        statistics: that are given it.
        probabilities: float32 [N, K], answers to held-out pictures.
    """
    statistics.confidence.CopyFrom(distributions.summarise(probabilities.max(axis=1)))

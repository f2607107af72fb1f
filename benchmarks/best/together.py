"""What the nets of all trials know together: whether a teacher made of them would know more.

A picture for which all nets are wrong has a wrong label, cannot be read, or is not like the others.
"""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.best import training
from benchmarks.best.trials import Study
from benchmarks.harness.command import BenchmarkError, tell
from benchmarks.harness.table import grid
from convserve_trainer.datasets import splits
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.evaluation import predict
from convserve_trainer.nets import keras_file, models


def table(study: Study, data: Data, work: Path) -> str:
    """Returns how many of the pictures that judge the trials are right, as a Markdown table.

    Args:
        study: with all trials; the nets are those of seed 1.
        data: of the task, whole.
        work: folder with the nets.

    Raises:
        BenchmarkError: fewer than two nets are there.
    """
    files = {
        trial.name: training.net_file(study, trial, 1, work / "validation")
        for trial in study.trials
    }
    there = {name: file for name, file in files.items() if file.exists()}
    if len(there) < 2:
        raise BenchmarkError(f"{work}: expected the nets of two trials or more, got {len(there)}")
    pictures = splits.reserve(data, study.share, calibrate=False).validation
    assert pictures is not None, "reserve keeps some"
    probabilities = []
    for name, file in there.items():
        tell(f"asking {name}")
        net = models.with_class_columns(keras_file.read(file))
        answers, labels = predict.answer(partial(predict.by_keras, net), pictures)
        probabilities.append(answers)
    wrong = np.array([one.argmax(axis=1) != labels for one in probabilities])
    mean = np.mean(probabilities, axis=0).argmax(axis=1) != labels
    rows = [(name, *_shares(one)) for name, one in zip(there, wrong, strict=True)]
    rows.append((f"the mean answer of these {len(there)}", *_shares(mean)))
    rows.append(("all of them are right", *_shares(np.logical_or.reduce(wrong))))
    rows.append(("at least one of them is right", *_shares(np.logical_and.reduce(wrong))))
    return grid(("net", "right", "wrong, pictures"), rows, {"net"})


def _shares(wrong: npt.NDArray[np.bool_]) -> tuple[str, str]:
    return f"{1 - wrong.mean():.2%}", f"{wrong.sum():,}"

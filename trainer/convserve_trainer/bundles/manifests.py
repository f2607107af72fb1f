"""The manifest: what a bundle says of itself (protos/convserve_protos/bundle.proto)."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_bundle.contract import FORMAT, FORMAT_WITH_OUTPUT, MANIFEST_KEY, is_name
from convserve_bundle.manifest import manifest_text
from convserve_protos.bundle_pb2 import (
    OUTPUT_MULTI_LABEL,
    OUTPUT_SOFTMAX,
    PRECISION_INT8,
    Manifest,
    Precision,
    Training,
)
from convserve_trainer.bundles import picture_statistics
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import UsageError
from convserve_trainer.evaluation.score import Thresholds
from convserve_trainer.export import loss, precisions
from convserve_trainer.export.parity import Comparison
from convserve_trainer.nets import keras_backend
from convserve_trainer.nets.origin import Origin

if TYPE_CHECKING:
    import onnx

    from convserve_trainer.recipes.recipe import Recipe

MADE_WITH = (
    *("convserve", "keras", "tensorflow", "tf2onnx", "onnx", "onnxslim", "onnxruntime", "numpy"),
    *("simplejpeg", "cykooz.resizer", "pillow"),  # make the pixels
)
JAX = ("jax", "jaxlib")  # beside them, where Keras is on it


def check_name(name: str) -> None:
    """Checks the name of a model.

    Raises:
        UsageError: it is not what bundle.proto takes.
    """
    if not is_name(name):
        raise UsageError(
            "--name: expected a letter or digit, then letters, digits, '.', '_', '-', at most 64 "
            f"characters, got {name!r}"
        )


def make_manifest(
    name: str,
    recipe: "Recipe",
    data: Data,
    epochs: int,
    compared: Comparison,
    parameters: int,
    precision: Precision.ValueType,
    calibrated: int = 0,
    thresholds: Thresholds | None = None,
) -> Manifest:
    """Returns the manifest of a net.

    Args:
        name: of the model.
        recipe: with all overrides.
        data: that it was trained on.
        epochs: that its weights have seen.
        compared: Keras and the exported net on all that is held out.
        parameters: trainable ones.
        precision: that it is published in.
        calibrated: training pictures that int8 is calibrated on.
        thresholds: where pictures have several labels; None otherwise.
    """
    manifest = Manifest(
        format=FORMAT if thresholds is None else FORMAT_WITH_OUTPUT,
        name=name,
        labels=data.labels,
        output=OUTPUT_SOFTMAX if thresholds is None else OUTPUT_MULTI_LABEL,
        thresholds=() if thresholds is None else thresholds.tolist(),
        input=data.spec,
        training=Training(
            recipe=recipe.name,
            recipe_json=recipe.to_json(),
            seed=recipe.seed,
            epochs=epochs,
            versions=versions(),
            git_commit=git_commit(),
            dataset_sha256=data.sha256,
            backend=keras_backend.chosen(),
        ),
        parameters=parameters,
        statistics=picture_statistics.of_pictures(data.train),
    )
    state(manifest, compared, precision, calibrated)
    return manifest


def state(
    manifest: Manifest, compared: Comparison, precision: Precision.ValueType, calibrated: int
) -> None:
    """Makes a manifest say what the published file is, and how it compares.

    Args:
        manifest: of the net.
        compared: the file, and Keras or what has every label of Keras's.
        precision: of the file.
        calibrated: training pictures that int8 is calibrated on, otherwise 0.
    """
    manifest.precision = precision
    metrics = compared.onnxruntime.as_dict() | {"keras_correct": compared.reference.correct}
    manifest.metrics.clear()
    manifest.metrics.update(metrics)
    training = manifest.training
    training.parity_max_abs = compared.largest
    training.parity_bound = precisions.BOUNDS[precision]
    training.parity_mean_abs = compared.mean
    training.parity_mean_bound = loss.MEAN if precision == PRECISION_INT8 else 0
    training.calibration_pictures = calibrated
    picture_statistics.state_confidence(manifest.statistics, compared.answers.probabilities)
    manifest.created.FromDatetime(datetime.now(UTC))


def state_origins(manifest: Manifest, origins: Sequence[Origin]) -> None:
    """Makes a manifest say what the net's weights were before its training."""
    for origin in origins:
        manifest.training.origins.add(source=origin.source, sha256=origin.sha256)


def attach(manifest: Manifest, model: "onnx.ModelProto", earlier: str = "") -> None:
    """Puts the manifest into the metadata of a model that has none.

    Args:
        manifest: of the net.
        model: that is given it.
        earlier: text of the manifest that it was made from; see `manifest_text`.
    """
    model.metadata_props.add(key=MANIFEST_KEY, value=manifest_text(manifest, earlier))


def versions() -> dict[str, str]:
    """Returns the versions of what a bundle is made with, by name."""
    names = (*MADE_WITH, *JAX) if keras_backend.chosen() == "jax" else MADE_WITH
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"python": platform.python_version()}


def git_commit() -> str:
    """Returns the commit of the checkout this code runs from, or nothing outside one."""
    here = Path(__file__).resolve()
    try:
        # An environment inside a checkout is not part of it: the file itself must be tracked.
        _git(here.parent, "ls-files", "--error-unmatch", "--", here.name)
        return _git(here.parent, "rev-parse", "HEAD").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

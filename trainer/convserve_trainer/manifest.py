"""The manifest: what a bundle says of itself (protos/convserve_protos/bundle.proto)."""

import importlib.metadata
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import onnx
from google.protobuf import json_format

from convserve_imaging import MNIST_CENTRE
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, InputSpec, Manifest, Training
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import Recipe
from convserve_trainer.score import Score

KEY = "convserve.manifest"
FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MADE_WITH = ("convserve", "keras", "tensorflow", "tf2onnx", "onnx", "onnxslim", "numpy")


def check_name(name: str) -> None:
    """Checks the name of a model.

    Raises:
        UsageError: it is not what bundle.proto takes.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--name is {name!r}; it takes a letter or digit, then letters, digits, '.', '_', '-', "
            "at most 64 characters"
        )


def digits(
    name: str, recipe: Recipe, score: Score, parity: float, parameters: int, dataset_sha256: str
) -> Manifest:
    """Returns the manifest of a net that tells digits apart.

    Args:
        name: of the model.
        recipe: with all overrides.
        score: of the exported net on the held-out digits.
        parity: largest difference between the probabilities of Keras and of the exported net.
        parameters: trainable ones.
        dataset_sha256: digest of the data as used, hexadecimal.
    """
    manifest = Manifest(
        format=FORMAT,
        name=name,
        labels=[str(digit) for digit in range(10)],
        input=InputSpec(
            height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS, resize=MNIST_CENTRE
        ),
        training=Training(
            recipe=recipe.name,
            recipe_json=recipe.to_json(),
            seed=recipe.seed,
            epochs=recipe.epochs,
            versions=versions(),
            git_commit=git_commit(),
            dataset_sha256=dataset_sha256,
            parity_max_abs=parity,
        ),
        metrics=score.as_dict(),
        parameters=parameters,
    )
    manifest.created.FromDatetime(datetime.now(UTC))
    return manifest


def attach(manifest: Manifest, model: onnx.ModelProto) -> None:
    """Puts the manifest into the metadata of a model that has none."""
    text = json_format.MessageToJson(manifest, indent=None)
    model.metadata_props.add(key=KEY, value=text)


def versions() -> dict[str, str]:
    """Returns the versions of what a bundle is made with, by name."""
    found = {name: importlib.metadata.version(name) for name in MADE_WITH}
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

"""The model that a demo serves: one that is there already, or trained now."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import bundle


def newest(models: Path, name: str) -> Manifest:
    """The manifest of the newest version; an empty one if there is none that can be read."""
    try:
        return bundle.read_manifest(models / name)
    except BundleError:
        return Manifest()


def train(models: Path, name: str, arguments: Sequence[str]) -> Manifest:
    """Run convserve-train fit with these arguments; returns what was published.

    Raises:
        subprocess.CalledProcessError: it failed, and has printed why.
    """
    command = ["fit", *arguments, "--models", str(models), "--name", name]
    print(f"convserve-train {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "convserve_trainer.main", *command], check=True)
    return bundle.read_manifest(models / name)


def reuse(models: Path, name: str, manifest: Manifest) -> None:
    """Say what is served again."""
    made = manifest.created.ToDatetime().strftime("%Y-%m-%d %H:%M")
    print(f"reusing {find_bundle(models / name)} (make clean removes it)")
    print(
        f"trained by recipe {manifest.training.recipe} at {made} UTC, "
        f"accuracy {manifest.metrics['accuracy']:.2%}"
    )

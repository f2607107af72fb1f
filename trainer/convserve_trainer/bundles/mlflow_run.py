"""A published bundle as a run of MLflow, and as a version of a model in its registry.

All of it comes from the bundle, so one of years ago can be recorded as well; `fit --mlflow` makes
the same run while a net is trained.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_bundle import verification
from convserve_bundle.errors import BundleError
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import bundle
from convserve_trainer.bundles.mlflow_store import MlflowRun, connect, explained
from convserve_trainer.evaluation import judgement

if TYPE_CHECKING:
    from mlflow.client import MlflowClient

_Row = dict[str, float]


@dataclass(frozen=True)
class Recorded:
    """What was made.

    Attributes:
        run: its id.
        url: of its artifacts.
        model: name in the registry; None where it was not registered.
        version: of that model.
    """

    run: str
    url: str
    model: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        text = f"run {self.run}, files in {self.url}"
        return text if self.model is None else f"{text}; {self.model}, version {self.version}"


def record(file: Path, uri: str, experiment: str | None, model: str | None) -> Recorded:
    """Makes a run of a bundle: settings, every epoch, figures on held-out pictures, its files.

    Args:
        file: model.onnx in the folder of its version, whose files become the run's.
        uri: of MLflow: a folder, sqlite:///FILE or the address of a server.
        experiment: that the run is in; None for the name of the model.
        model: that it becomes a version of in MLflow's registry; None for no registry.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
        TrackerError: MLflow refuses, or cannot be reached; the run, if there is one, is FAILED.
        BundleError: it is not a bundle, is damaged, or its files are not those of its digests.
    """
    try:
        verification.verify_bundle(file)
    except BundleError as error:
        raise BundleError(f"{file.parent}: {error}") from error
    client = connect(uri)  # makes the folder, where that is the store
    with explained(uri):
        return _recorded(client, file, experiment, model)


def _recorded(
    client: "MlflowClient", file: Path, experiment: str | None, model: str | None
) -> Recorded:
    manifest = bundle.read_manifest(file)
    made = manifest.created.ToMilliseconds()
    rows = _epochs(file)
    started = made - round(1000 * sum(row["seconds"] for row in rows))
    name = f"{manifest.name} {file.parent.name}"
    run = MlflowRun.begin(client, experiment or manifest.name, name, started)
    try:
        run.tag(manifest, file.parent.name)
        run.settings(_settings(manifest))
        run.epochs(_with_times(rows, started))
        judged = file.with_name(judgement.FILE)
        run.held_out(manifest, judged.read_bytes() if judged.is_file() else None, made)
        url = run.files(file.parent)
        version = None if model is None else run.register(model, url)
    except BaseException:
        run.end("FAILED")
        raise
    run.end("FINISHED", made)
    return Recorded(run.id, url, model, version)


def _settings(manifest: Manifest) -> dict[str, Any]:
    try:
        return dict(json.loads(manifest.training.recipe_json or "{}"))
    except (ValueError, TypeError) as error:
        raise BundleError(f"damaged recipe: {error}") from error


def _epochs(file: Path) -> list[_Row]:
    """Returns the figures of each epoch by name; none where there is no history."""
    history = file.with_name("history.csv")
    if not history.is_file():
        return []
    try:
        with history.open(newline="") as lines:
            rows = [
                {name: float(text) for name, text in row.items() if text}
                for row in csv.DictReader(lines)
            ]
    except (ValueError, TypeError) as error:
        raise BundleError(f"{history}: damaged history: {error!r}") from error
    if missing := [name for row in rows for name in ("epoch", "seconds") if name not in row]:
        raise BundleError(f"{history}: damaged history: expected {missing[0]} in each row")
    return rows


def _with_times(rows: list[_Row], started: int) -> list[tuple[_Row, int]]:
    """Returns the figures of each epoch with the time at which it ended."""
    passed, found = 0.0, []
    for row in rows:
        passed += row["seconds"]
        found.append((row, started + round(1000 * passed)))
    return found

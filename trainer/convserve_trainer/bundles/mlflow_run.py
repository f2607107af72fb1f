"""A published bundle as a run of MLflow, and as a version of a model in its registry.

All of it comes from the bundle, so a training needs no tracker that answers while it runs, and one
of years ago can be recorded as well.

Source: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html.
"""

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_bundle import verification
from convserve_bundle.errors import BundleError
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import bundle
from convserve_trainer.errors import TrackerError
from convserve_trainer.evaluation import classes, judgement

if TYPE_CHECKING:
    from mlflow.client import MlflowClient
    from mlflow.entities import Metric

ARTIFACTS = "bundle"  # folder of the run's artifacts
DIGEST = "convserve.dataset_sha256"
VERSION = "convserve.bundle"
_MOST_VALUE = 500  # characters of a parameter: what servers of all versions accept
_MOST_METRICS, _MOST_PARAMETERS = 1_000, 100  # of one request


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
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    # Whoever names a folder wants one, although MLflow develops it no further.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow
    from mlflow.client import MlflowClient

    try:
        verification.verify_bundle(file)
    except BundleError as error:
        raise BundleError(f"{file.parent}: {error}") from error
    manifest = bundle.read_manifest(file)
    made = manifest.created.ToMilliseconds()
    rows = _epochs(file)
    started = made - round(1000 * sum(row["seconds"] for row in rows))
    metrics = [*_of_epochs(rows, started), *_of_held_out(file, manifest, made)]
    with _explained(uri):
        # The registry looks runs up there, whatever its client is given: by default a new database.
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        name = experiment or manifest.name
        found = client.get_experiment_by_name(name)
        number = client.create_experiment(name) if found is None else found.experiment_id
        run = client.create_run(
            number,
            start_time=started,
            tags=_tags(file, manifest),
            run_name=f"{manifest.name} {file.parent.name}",
        ).info
        with _ended(client, run.run_id, made):
            _log(client, run.run_id, manifest, metrics)
            client.log_artifacts(run.run_id, str(file.parent), ARTIFACTS)
            url = f"{run.artifact_uri}/{ARTIFACTS}"
            if model is None:
                return Recorded(run.run_id, url)
            if not client.search_registered_models(f"name = '{model}'"):
                client.create_registered_model(model)
            version = client.create_model_version(model, url, run.run_id).version
        return Recorded(run.run_id, url, model, str(version))


def _tags(file: Path, manifest: Manifest) -> dict[str, str]:
    training = manifest.training
    tags = {
        VERSION: f"{manifest.name}/{file.parent.name}",
        DIGEST: training.dataset_sha256,
        "mlflow.source.git.commit": training.git_commit,
    }
    return {name: text for name, text in tags.items() if text}


def _log(client: "MlflowClient", run: str, manifest: Manifest, metrics: "list[Metric]") -> None:
    from mlflow.entities import Param

    try:
        settings = dict(json.loads(manifest.training.recipe_json or "{}"))
    except (ValueError, TypeError) as error:
        raise BundleError(f"damaged recipe: {error}") from error
    parameters = [Param(name, _short(value)) for name, value in _flat(settings)]
    parameters.append(Param("precision", str(manifest.precision)))
    for start in range(0, len(parameters), _MOST_PARAMETERS):
        client.log_batch(run, params=parameters[start : start + _MOST_PARAMETERS])
    for start in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run, metrics=metrics[start : start + _MOST_METRICS])


def _flat(settings: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields settings with their names: "augmentation.shift"."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MOST_VALUE else f"{text[: _MOST_VALUE - 1]}…"


def _epochs(file: Path) -> list[dict[str, float]]:
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


def _of_epochs(rows: list[dict[str, float]], started: int) -> "Iterator[Metric]":
    """Yields the figures of each epoch, at the time at which it ended."""
    from mlflow.entities import Metric

    passed = 0.0
    for row in rows:
        passed += row["seconds"]
        for name, value in row.items():
            if name != "epoch":
                yield Metric(name, value, started + round(1000 * passed), int(row["epoch"]))


def _of_held_out(file: Path, manifest: Manifest, made: int) -> "Iterator[Metric]":
    """Yields the manifest's figures, and the means of classes where the bundle has them."""
    from mlflow.entities import Metric

    figures = dict(manifest.metrics)
    judged = file.with_name(judgement.FILE)
    if judged.is_file():
        try:
            macro = json.loads(judged.read_bytes())["macro"]
            means = {name: macro[name] for name in classes.FIGURES}
            figures |= {f"macro_{name}": float(v) for name, v in means.items() if v is not None}
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"{judged}: damaged figures: {error!r}") from error
    for name, value in sorted(figures.items()):
        yield Metric(f"held_out_{name}", value, made, manifest.training.epochs)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Raises what MLflow raises as an error of one line."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrackerError(f"MLflow at {uri}: {first}") from error


@contextmanager
def _ended(client: "MlflowClient", run: str, made: int) -> Iterator[None]:
    """Ends a run, as FINISHED when the bundle was made, or as FAILED where an error passes."""
    try:
        yield
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, "FINISHED", made)

"""A run of MLflow while it is made, of a training that goes on or of a bundle that is there.

Source: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_bundle.errors import BundleError
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.errors import TrackerError
from convserve_trainer.evaluation import classes, judgement

if TYPE_CHECKING:
    from mlflow.client import MlflowClient
    from mlflow.entities import Metric

ARTIFACTS = "bundle"  # folder of the run's artifacts
DIGEST = "convserve.dataset_sha256"
VERSION = "convserve.bundle"
_COMMIT, _NAME = "mlflow.source.git.commit", "mlflow.runName"
_MOST_VALUE = 500  # characters of a parameter: what servers of all versions accept
_MOST_METRICS, _MOST_PARAMETERS = 1_000, 100  # of one request


def connect(uri: str) -> "MlflowClient":
    """Returns a client of a store: a folder, sqlite:///FILE or the address of a server.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    # Whoever names a folder wants one, although MLflow develops it no further.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it explains its tables
    import mlflow
    from mlflow.client import MlflowClient

    # The registry looks runs up there, whatever its client is given: by default a new database.
    mlflow.set_tracking_uri(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Raises what MLflow raises as an error of one line.

    Raises:
        TrackerError: so.
    """
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrackerError(f"MLflow at {uri}: {first}") from error


class MlflowRun:
    """A run; its methods raise what MLflow raises.

    Args:
        client: of the store.
        run: its id.
    """

    def __init__(self, client: "MlflowClient", run: str) -> None:
        self._client = client
        self.id = run

    @classmethod
    def begin(
        cls, client: "MlflowClient", experiment: str, name: str, started: int | None = None
    ) -> "MlflowRun":
        """Makes a run.

        Args:
            client: of the store.
            experiment: that it is in; made if it is not there.
            name: of the run.
            started: when it began, ms since 1970; None: now.
        """
        found = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if found is None else found.experiment_id
        run = client.create_run(number, start_time=started, run_name=name)
        return cls(client, run.info.run_id)

    def go_on(self) -> int:
        """Makes a run that has ended RUNNING again; returns its last epoch, 0 for none."""
        self._client.update_run(self.id, status="RUNNING")
        return max(
            (each.step for each in self._client.get_metric_history(self.id, "loss")), default=0
        )

    def tag(self, manifest: Manifest, version: str | None = None) -> None:
        """States what a run has been made of: data, code, and the version that it has become."""
        self.tag_data(manifest.training.dataset_sha256)
        if manifest.training.git_commit:
            self._client.set_tag(self.id, _COMMIT, manifest.training.git_commit)
        if version is not None:
            self._client.set_tag(self.id, VERSION, f"{manifest.name}/{version}")
            self._client.set_tag(self.id, _NAME, f"{manifest.name} {version}")

    def tag_data(self, sha256: str) -> None:
        """States which data."""
        if sha256:
            self._client.set_tag(self.id, DIGEST, sha256)

    def settings(self, recipe: Mapping[str, Any]) -> None:
        """Adds all settings of a recipe as parameters: "augmentation.shift"."""
        from mlflow.entities import Param

        given = [Param(name, _short(value)) for name, value in _flat(recipe)]
        for start in range(0, len(given), _MOST_PARAMETERS):
            self._client.log_batch(self.id, params=given[start : start + _MOST_PARAMETERS])

    def epoch(self, figures: Mapping[str, float], ended: int) -> None:
        """Adds the figures of an epoch.

        Args:
            figures: by the columns of history.csv.
            ended: when, ms since 1970.
        """
        self.epochs([(figures, ended)])

    def epochs(self, rows: Iterable[tuple[Mapping[str, float], int]]) -> None:
        """Adds the figures of several epochs, each as `epoch` has it."""
        from mlflow.entities import Metric

        self._log(
            Metric(name, value, ended, int(figures["epoch"]))
            for figures, ended in rows
            for name, value in figures.items()
            if name != "epoch"
        )

    def held_out(self, manifest: Manifest, judged: bytes | None, made: int) -> None:
        """Adds the precision, the manifest's figures, and the means of classes.

        Args:
            manifest: of the bundle.
            judged: content of its evaluation.json; None without one.
            made: when it was made, ms since 1970.

        Raises:
            BundleError: the figures are damaged.
        """
        from mlflow.entities import Metric

        figures = dict(manifest.metrics)
        if judged is not None:
            try:
                macro = json.loads(judged)["macro"]
                means = {name: macro[name] for name in classes.FIGURES}
                known = {f"macro_{name}": float(v) for name, v in means.items() if v is not None}
            except (ValueError, TypeError, KeyError) as error:
                raise BundleError(f"{judgement.FILE}: damaged figures: {error!r}") from error
            figures |= known
        self._client.log_param(self.id, "precision", str(manifest.precision))
        self._log(
            Metric(f"held_out_{name}", value, made, manifest.training.epochs)
            for name, value in sorted(figures.items())
        )

    def files(self, folder: Path) -> str:
        """Adds the files of a bundle's folder; returns their URL."""
        self._client.log_artifacts(self.id, str(folder), ARTIFACTS)
        return f"{self._client.get_run(self.id).info.artifact_uri}/{ARTIFACTS}"

    def register(self, model: str, url: str) -> str:
        """Makes it the next version of a model in the registry; returns the version."""
        if not self._client.search_registered_models(f"name = '{model}'"):
            self._client.create_registered_model(model)
        return str(self._client.create_model_version(model, url, self.id).version)

    def end(self, status: str, made: int | None = None) -> None:
        """Ends it as FINISHED, FAILED or KILLED, at a time in ms since 1970; None: now."""
        self._client.set_terminated(self.id, status, made)

    def _log(self, metrics: "Iterable[Metric]") -> None:
        found = list(metrics)
        for start in range(0, len(found), _MOST_METRICS):
            self._client.log_batch(self.id, metrics=found[start : start + _MOST_METRICS])


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields settings with their names."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MOST_VALUE else f"{text[: _MOST_VALUE - 1]}…"

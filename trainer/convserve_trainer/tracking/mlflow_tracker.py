"""MLflow while a net is trained: the run that `convserve-train track` makes of a bundle, live."""

import json
import os
import tempfile
import time
from pathlib import Path

from convserve_bundle.contract import MODEL_FILE
from convserve_host import atomic_file
from convserve_trainer.bundles import bundle
from convserve_trainer.bundles.mlflow_store import MlflowRun, connect, explained
from convserve_trainer.evaluation import judgement
from convserve_trainer.tracking.tracker import EndedRun, Figures, StartedRun, Tracker

FILE = "mlflow.json"
"""In the folder of a run: its id, so that a training that is resumed goes on with it."""


class MlflowTracker(Tracker):
    """One run of MLflow; its methods raise TrackerError where MLflow refuses or is away.

    Args:
        uri: of MLflow.
        experiment: that the run is in; None for the name of the model.
        model: that the bundle becomes a version of in MLflow's registry; None for no registry.
    """

    def __init__(self, uri: str, experiment: str | None = None, model: str | None = None) -> None:
        # MLflow's own would be minutes, in which nothing is seen of a server that is away.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        self._uri = uri
        self._experiment = experiment
        self._model = model
        self._client = connect(uri)
        self._run: MlflowRun | None = None

    @property
    def run(self) -> MlflowRun:
        """The run, once it is begun."""
        assert self._run is not None
        return self._run

    def start(self, run: StartedRun) -> None:
        """Begins a run, or goes on with that of the training that is resumed."""
        with explained(self._uri):
            kept = _kept(run.folder / FILE, self._uri) if run.resumed else None
            recorded = 0
            if kept is not None:
                self._run = MlflowRun(self._client, kept)
                recorded = self.run.go_on()
            else:
                name = f"{run.name}, seed {run.recipe.get('seed', 0)}"
                self._run = MlflowRun.begin(self._client, self._experiment or run.name, name)
                self.run.settings(run.recipe)
                self.run.tag_data(run.dataset_sha256)
                _keep(run.folder / FILE, self._uri, self.run.id)
            for figures in run.earlier:
                if figures["epoch"] > recorded:
                    self.run.epoch(figures, _now())

    def epoch(self, figures: Figures) -> None:
        """Adds the figures of an epoch."""
        with explained(self._uri):
            self.run.epoch(figures, _now())

    def end(self, run: EndedRun) -> None:
        """Adds what the bundle says, and its files; a version of a model if that is asked for."""
        manifest = bundle.loaded(run.content, MODEL_FILE)[1]
        with explained(self._uri):
            self.run.tag(manifest, _version(run.published))
            self.run.held_out(manifest, run.files.get(judgement.FILE), _now())
            if run.published is not None:
                url = self._files(run)
                if self._model is not None:
                    self.run.register(self._model, url)
            self.run.end("FINISHED")

    def fail(self, problem: str, *, stopped: bool) -> None:
        """Ends the run as KILLED if it was stopped, else as FAILED."""
        with explained(self._uri):
            self.run.end("KILLED" if stopped else "FAILED")

    def _files(self, run: EndedRun) -> str:
        published = Path(run.published or "")
        if published.name == MODEL_FILE and published.is_file():
            return self.run.files(published.parent)
        # On object storage; what was sent there is at hand.
        with tempfile.TemporaryDirectory() as folder:
            for name, content in {MODEL_FILE: run.content, **run.files}.items():
                (Path(folder) / name).write_bytes(content)
            return self.run.files(Path(folder))


def _version(published: str | None) -> str | None:
    """Returns the number of a version by its path or URL."""
    if published is None:
        return None
    parts = published.rstrip("/").removesuffix(f"/{MODEL_FILE}").rpartition("/")
    return parts[2]


def _now() -> int:
    return round(1000 * time.time())


def _kept(file: Path, uri: str) -> str | None:
    """Returns the id that is kept; None if there is none, or one of another MLflow."""
    try:
        kept = json.loads(file.read_text())
        return str(kept["run"]) if kept["uri"] == uri else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a run of its own then


def _keep(file: Path, uri: str, run: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file.replaced(file) as temporary:
        temporary.write_text(json.dumps({"uri": uri, "run": run}))

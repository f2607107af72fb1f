"""Bundles as runs of MLflow: in files, in a database with its registry, and on its server."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from benchmarks.harness.ports import free_port
from convserve_bundle import publish
from convserve_bundle.contract import MANIFEST_KEY
from convserve_trainer.main import main
from tests.bundles import manifest, model

needs_mlflow = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="no MLflow in this environment: make test-mlflow has one"
)
#: MLflow warns in many ways of its own: it is asked in processes of their own.
ENVIRONMENT = os.environ | {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "GIT_PYTHON_REFRESH": "quiet",
}
HISTORY = """epoch,loss,accuracy,val_loss,val_accuracy,seconds,input_share,learning_rate
1,0.5,0.8,,,2.0,0.01,0.001
2,0.25,0.9,0.3,0.85,3.0,0.01,0.001
"""
READ = """
import json, sys
from mlflow.client import MlflowClient
client = MlflowClient(sys.argv[1])
[experiment] = [e for e in client.search_experiments() if e.name != "Default"]
[run] = client.search_runs([experiment.experiment_id])
losses = client.get_metric_history(run.info.run_id, "loss")
json.dump(dict(
    experiment=experiment.name, name=run.info.run_name, status=run.info.status,
    took=(run.info.end_time or 0) - run.info.start_time,
    params=run.data.params, tags=run.data.tags, metrics=run.data.metrics,
    losses=[[m.step, m.value, m.timestamp - run.info.start_time] for m in losses],
    files=[f.path for f in client.list_artifacts(run.info.run_id, "bundle")],
    versions=[[v.name, v.version, v.run_id == run.info.run_id]
              for v in client.search_model_versions()],
), sys.stdout)
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The folder of a version with what a training leaves there."""
    stated = manifest("lit")
    stated.metrics.update({"accuracy": 0.9, "correct": 36, "total": 40})
    stated.created.FromJsonString("2026-11-26T03:04:05Z")
    training = stated.training
    training.git_commit, training.dataset_sha256, training.epochs = "c0ffee", "d1935", 2
    recipe = {"seed": 3, "augmentation": {"shift": 0.1}, "limit": None, "net": ["x" * 600]}
    training.recipe_json = json.dumps(recipe)
    content = model({MANIFEST_KEY: json_format.MessageToJson(stated)}).SerializeToString()
    macro = {"precision": None, "recall": 0.9, "f1": 0.8, "roc_auc": 0.95}
    extra = {
        "history.csv": HISTORY.encode(),
        "evaluation.json": json.dumps({"macro": macro}).encode(),
    }
    return publish.publish(content, tmp_path / "models", "lit", extra_files=extra).parent


def _track(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "convserve_trainer", "track", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def _read(uri: str) -> dict[str, Any]:
    command = [sys.executable, "-c", READ, uri]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_mlflow
@pytest.mark.parametrize("store", ["files", "database"])
def test_run_has_settings_epochs_figures_and_files(
    store: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where artifacts of a database go
    uri = str(tmp_path / "mlruns") if store == "files" else f"sqlite:///{tmp_path}/mlflow.db"
    done = _track(bundle, "--mlflow", uri, "--register", "digits")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("; digits, version 1\n")
    assert (tmp_path / "mlflow.db").exists() is (store == "database"), "a store nobody asked for"
    found = _read(uri)
    assert (found["experiment"], found["name"], found["status"]) == ("lit", "lit 1", "FINISHED")
    params = found["params"]
    assert (params["seed"], params["augmentation.shift"]) == ("3", "0.1")
    assert "limit" not in params
    assert len(params["net"]) == 500
    assert found["losses"] == [[1, 0.5, 2000], [2, 0.25, 5000]]
    assert found["took"] == 5000
    metrics = found["metrics"]
    assert (metrics["val_loss"], metrics["held_out_accuracy"]) == (0.3, 0.9)
    assert metrics["held_out_macro_f1"] == 0.8
    assert "held_out_macro_precision" not in metrics
    assert found["tags"]["mlflow.source.git.commit"] == "c0ffee"
    assert found["tags"]["convserve.dataset_sha256"] == "d1935"
    assert sorted(found["files"]) == [
        f"bundle/{name}" for name in ("digests.json", "evaluation.json", "history.csv")
    ] + ["bundle/model.onnx"]
    assert [[name, int(number), own] for name, number, own in found["versions"]] == [
        ["digits", 1, True]
    ]


@needs_mlflow
def test_second_version_is_the_next_one_of_the_registry(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = str(tmp_path / "mlruns")
    for number in (1, 2):
        done = _track(bundle, "--mlflow", uri, "--experiment", "mine", "--register", "digits")
        assert done.stdout.endswith(f"; digits, version {number}\n"), done.stderr


@needs_mlflow
@pytest.mark.parametrize("problem", ["nobody", "name"])
def test_store_that_refuses_is_one_line(problem: str, bundle: Path, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}" if problem == "nobody" else str(tmp_path / "mlruns")
    more = [] if problem == "nobody" else ["--register", "a/b:c"]
    done = _track(bundle, "--mlflow", uri, *more)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"convserve-train: MLflow at {uri}: ")
    assert "Traceback" not in done.stderr
    if problem == "name":
        assert _read(uri)["status"] == "FAILED"


@needs_mlflow
def test_bundle_that_was_changed_is_refused_before_anything_is_made(
    bundle: Path, tmp_path: Path
) -> None:
    (bundle / "history.csv").write_text("other")
    done = _track(bundle, "--mlflow", tmp_path / "mlruns")
    assert done.returncode == 1
    assert "history.csv was changed" in done.stderr
    assert not (tmp_path / "mlruns").exists()


@needs_mlflow
def test_bundle_without_history_and_figures_is_a_run_too(bundle: Path, tmp_path: Path) -> None:
    for name in ("history.csv", "evaluation.json", "digests.json"):
        (bundle / name).unlink()
    done = _track(bundle, "--mlflow", tmp_path / "mlruns")
    assert done.returncode == 0, done.stderr
    assert "version" not in done.stdout
    found = _read(str(tmp_path / "mlruns"))
    assert found["files"] == ["bundle/model.onnx"]
    assert found["losses"] == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of MLflow's own server."""
    port = free_port()
    store = f"sqlite:///{tmp_path}/server.db"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--default-artifact-root", str(tmp_path / "files")]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
        try:
            uri = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 240
            while not _answers(f"{uri}/health"):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            yield uri
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@needs_mlflow
def test_run_is_on_mlflows_server(bundle: Path, server: str) -> None:
    done = _track(bundle, "--mlflow", server, "--register", "digits")
    assert done.returncode == 0, done.stderr
    found = _read(server)
    assert (found["name"], found["status"]) == ("lit 1", "FINISHED")
    assert [name for name, *_ in found["versions"]] == ["digits"]
    assert _answers(f"{server}/"), "its page"


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is installed")
def test_without_mlflow_the_command_says_how_to_have_it(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["track", str(bundle), "--mlflow", "mlruns"]) == 1
    assert capsys.readouterr().err == (
        "convserve-train: mlflow is not installed; run: pip install 'convserve[train,mlflow]'\n"
    )


LIVE = """
import json, sys
from pathlib import Path
from convserve_trainer.tracking.mlflow_tracker import MlflowTracker
from convserve_trainer.tracking.tracker import EndedRun, StartedRun

uri, bundle, run, what = sys.argv[1:]
folder, recipe = Path(bundle), {"seed": 3, "augmentation": {"shift": 0.1}, "net": ["x" * 600]}
rows = [
    {"epoch": 1, "loss": 0.5, "accuracy": 0.8, "seconds": 2.0},
    {"epoch": 2, "loss": 0.25, "accuracy": 0.9, "val_loss": 0.3, "seconds": 3.0},
]
tracker = MlflowTracker(uri, None, "digits")
files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "model.onnx"}
content = (folder / "model.onnx").read_bytes()
resumed = what in ("resumed", "store")
earlier = rows[:1] if resumed else []
tracker.start(StartedRun("lit", recipe, "d1935", Path(run), resumed, earlier))
if not resumed:
    tracker.epoch(rows[0])
if what == "killed":
    sys.exit(0)  # without a word, as a process that is killed
if what in ("stopped", "failed"):
    tracker.fail("a problem", stopped=what == "stopped")
    sys.exit(0)
tracker.epoch(rows[1])
published = "s3://models/lit/1" if what == "store" else str(folder / "model.onnx")
tracker.end(EndedRun(published, content, files))
"""


def _live(what: str, uri: str, bundle: Path, run: Path) -> None:
    command = [sys.executable, "-c", LIVE, uri, str(bundle), str(run), what]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr


@needs_mlflow
@pytest.mark.parametrize("before", ["", "killed", "stopped"])
def test_live_run_is_that_of_the_bundle_also_after_a_stop(
    before: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    live, later = (f"sqlite:///{tmp_path}/{name}.db" for name in ("live", "later"))
    if before:
        _live(before, live, bundle, tmp_path / "run")
        found = _read(live)
        assert found["status"] == {"killed": "RUNNING", "stopped": "KILLED"}[before]
        assert [loss[:2] for loss in found["losses"]] == [[1, 0.5]]
        assert found["name"] == "lit, seed 3"
    _live("resumed" if before else "whole", live, bundle, tmp_path / "run")
    assert _track(bundle, "--mlflow", later, "--register", "digits").returncode == 0
    found, stated = _read(live), _read(later)
    for each in (found, stated):
        each.pop("took")  # of a training that is played
        each["losses"] = [loss[:2] for loss in each["losses"]]
        each["metrics"] = {k: v for k, v in each["metrics"].items() if k in METRICS}
    assert found == stated
    assert found["losses"] == [[1, 0.5], [2, 0.25]]
    assert found["versions"] == [["digits", 1, True]]


METRICS = {"loss", "accuracy", "val_loss", "held_out_accuracy", "held_out_macro_f1"}


@needs_mlflow
def test_live_run_of_a_bundle_on_object_storage_has_its_files(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = str(tmp_path / "mlruns")
    _live("store", uri, bundle, tmp_path / "run")
    found = _read(uri)
    assert (found["name"], found["status"]) == ("lit 1", "FINISHED")
    assert "bundle/model.onnx" in found["files"]
    assert found["losses"][0][:2] == [1, 0.5], "what was not recorded of a run that is resumed"


@needs_mlflow
def test_live_run_that_fails_is_failed(bundle: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "mlruns")
    _live("failed", uri, bundle, tmp_path / "run")
    assert _read(uri)["status"] == "FAILED"


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is installed")
def test_without_mlflow_fit_says_how_to_have_it_before_any_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "no-data")
    (tmp_path / "no-data").mkdir()
    assert main(["fit", "digits", "--data", nowhere, "--mlflow", "mlruns"]) == 1
    assert capsys.readouterr().err == (
        "convserve-train: mlflow is not installed; run: pip install 'convserve[train,mlflow]'\n"
    )

"""What `fit` refuses where a launcher has started several processes of it, and the launchers."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convserve_trainer.cli.parser import parser
from convserve_trainer.host.launcher import ADDRESSES, COUNT, NUMBER, member
from convserve_trainer.main import main

yaml: Any = pytest.importorskip("yaml")  # which brings no types
DEPLOY = Path(__file__).parents[2] / "deploy"
#: By the rules of Kubernetes and of JobSet.
FIRST_HOSTS = {
    "train-processes.yaml": "convserve-train-0.convserve-train",
    "train-jobset.yaml": "convserve-train-processes-0-0.convserve-train",
}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            [],
            "--backend: expected jax for a training over 3 processes (KERAS_DISTRIBUTION_"
            "NUM_PROCESSES), got tensorflow; TensorFlow's strategy for several workers does not "
            "work with Keras 3",
        ),
        (
            ["--backend", "jax", "--seeds", "2"],
            "--seeds: expected 1 for a training over 3 processes (KERAS_DISTRIBUTION_"
            "NUM_PROCESSES), got 2; each seed can be a training of its own, on another machine",
        ),
        (
            ["--backend", "jax"],
            "batch_size: expected a multiple of 3 processes (KERAS_DISTRIBUTION_NUM_PROCESSES), "
            "got 64",
        ),
        (
            [
                *("--backend", "jax", "--batch-size", "66"),
                *("--set", 'distillation.teachers=["models/a"]'),
            ],
            "distillation.teachers: expected none for a training over 3 processes "
            "(KERAS_DISTRIBUTION_NUM_PROCESSES), got models/a",
        ),
        (
            [
                *("--backend", "jax", "--batch-size", "66"),
                *("--start-from", "net.keras", "--freeze-epochs", "1"),
            ],
            "freeze_epochs: expected 0 for a training over 3 processes (KERAS_DISTRIBUTION_"
            "NUM_PROCESSES), got 1",
        ),
    ],
)
def test_what_several_processes_cannot_train_is_refused(
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in ((ADDRESSES, "localhost:1"), (COUNT, "3"), (NUMBER, "0")):
        monkeypatch.setenv(name, value)
    assert main(["fit", "digits", *more]) == 2
    assert capsys.readouterr().err == f"convserve-train: {message}\n"


def test_half_set_variables_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COUNT, "2")
    assert main(["fit", "digits", "--backend", "jax"]) == 2
    expected = f"{ADDRESSES}: expected a value, because {COUNT} is set, got none"
    assert capsys.readouterr().err == f"convserve-train: {expected}\n"


def _containers(document: Any) -> Iterator[Any]:
    """The containers of a manifest, wherever they are."""
    if isinstance(document, dict):
        yield from document.get("containers", [])
        for value in document.values():
            yield from _containers(value)
    elif isinstance(document, list):
        for value in document:
            yield from _containers(value)


@pytest.mark.parametrize("name", ["train-processes.yaml", "train-jobset.yaml"])
def test_manifest_starts_what_fit_accepts(name: str) -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "jobs" / name).read_text()))
    [container] = _containers(documents)
    options = parser().parse_args(container["args"])
    assert (options.backend, options.resume_or_start) == ("jax", True)
    environment = {each["name"]: each["value"] for each in container["env"]}
    [port] = [each["containerPort"] for each in container["ports"]]
    [job] = _jobs(documents)
    for number in range(job["completions"]):
        found = member(environment | {"JOB_COMPLETION_INDEX": str(number)})
        assert found is not None
        assert (found.count, found.number) == (job["completions"], number)
        host, _, at = found.address.partition(":")
        assert (int(at), host) == (port, FIRST_HOSTS[name])
    assert job["parallelism"] == job["completions"], "all must run at the same time"
    assert job["completionMode"] == "Indexed"


def _jobs(document: Any) -> Iterator[Any]:
    """The specifications of Jobs in a manifest, wherever they are."""
    if isinstance(document, dict):
        if "completions" in document:
            yield document
        document = list(document.values())
    for value in document if isinstance(document, list) else []:
        yield from _jobs(value)


def test_script_for_slurm_starts_what_fit_accepts() -> None:
    text = (DEPLOY / "slurm" / "train.sbatch").read_text()
    [command] = re.findall(r"convserve-train (fit .*?[^\\])\n", text, re.DOTALL)
    options = parser().parse_args(shlex.split(command.replace("\\\n", " ")))
    assert (options.backend, options.resume_or_start) == ("jax", True)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=60)
    assert f"export {ADDRESSES}=" in text
    assert f"export {COUNT}=" in text

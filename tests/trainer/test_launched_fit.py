"""What `fit` refuses where a launcher has started several processes of it; before any training."""

import pytest

from convserve_trainer.host.launcher import ADDRESSES, COUNT, NUMBER
from convserve_trainer.main import main


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

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.command import BenchmarkError
from benchmarks.training import runs, step_time_breakdown
from benchmarks.training.__main__ import KERAS, OURS, Comparison, TrainerResult, _table, compare
from benchmarks.training.processes import ProcessesResult
from benchmarks.training.processes import _table as processes_table
from tests.benchmarks.tables import cells_of

pytestmark = pytest.mark.timeout(1000)


ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.training")
ROW = "epoch,loss,accuracy,val_loss,val_accuracy,seconds,input_share,learning_rate"
#: Says what a training of ours says, and keeps what one keeps.
OUR_SCRIPT = f"""
import pathlib, sys
run = pathlib.Path(sys.argv[1])
run.mkdir()
rows = ["1,0.5,0.9,,,9.0,0.75,0.001", "2,0.5,0.9,,,9.0,0.25,0.001"]
(run / "history.csv").write_text("\\n".join(["{ROW}", *rows, ""]))
print("epoch     loss  accuracy  seconds    input     left")
for epoch in (1, 2):
    print(f"  {{epoch}}/2   0.2500    0.9000     12.3     0.4%     12 s", flush=True)
print("held-out digits, Keras         loss 0.0300, accuracy 0.9901 (9,901 of 10,000 right)")
print("held-out digits, ONNX Runtime  loss 0.0300, accuracy 0.9902 (9,902 of 10,000 right)")
"""
KERAS_SCRIPT = r"""
for _ in range(2):
    print("1/938 1s 1ms/step - accuracy: 0.5000 - loss: 2.0")
    print("\nepoch finished", flush=True)
print("313/313 1s 2ms/step - accuracy: 0.1000 - loss: 0.1")
print("\naccuracy 0.9870")
"""


def _script(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


def test_both_are_watched_in_turn() -> None:
    runs = []

    def ours(run: Path) -> list[str]:
        runs.append(run)
        return _script(OUR_SCRIPT, str(run))

    task = Comparison("digits", 640, 10, _script(KERAS_SCRIPT), ours)
    keras, own = compare(task, rounds=2)
    assert (keras.name, own.name) == (KERAS, OURS)
    assert (keras.accuracy, own.accuracy) == ([0.987] * 2, [0.9901] * 2)
    assert (keras.input_share, own.input_share) == (None, 0.25), "the first epoch does not count"
    assert keras.ratio == 1
    assert len(own.epoch_s) == len(own.whole_s) == 2
    for side in (keras, own):
        assert all(
            0 < epoch < whole for epoch, whole in zip(side.epoch_s, side.whole_s, strict=True)
        )
    assert len(set(runs)) == 2, "every training has a folder of its own"


@pytest.mark.parametrize("script", ["print('no epoch')", f"{KERAS_SCRIPT}\nraise SystemExit(3)"])
def test_failed_training_is_reported_with_its_last_lines(script: str) -> None:
    with pytest.raises(BenchmarkError, match=r"ended with status [03]:\n(no epoch|1/938)"):
        runs.watch(_script(script))


def test_epochs_end_where_the_lines_came() -> None:
    lines = ["  9/12   0.2500    0.9000     12.3     0.4%", "epoch 3/4  step 7/20  loss 1.0 kept"]
    assert runs.read([(1.0, "x"), (2.5, lines[0]), (3.0, lines[1])]) == ([2.5], None)


def test_table_says_what_a_step_takes_and_the_ratio() -> None:
    side = TrainerResult(
        "digits", OURS, [8.0, 10.0, 9.0], [20.0] * 3, [0.99] * 3, 900, 100, 0.7, 0.002
    )
    *_, row = _table([side]).splitlines()
    assert cells_of(row) == [
        *("digits", OURS, "9.0 (8.0..10.0)", "90.0", "100", "0.70", "0.2%", "20"),
        "0.9900 (0.9900..0.9900)",
    ]


def test_parts_divide_the_time_and_count_nothing_twice() -> None:
    operations = [
        ("while/body/conv:Conv2D", (0.0, 4.0)),
        ("while/body/conv:Grad", (3.0, 5.0)),
        ("while/body/rmsprop/Mul:Mul", (4.5, 6.0)),
        ("while/body/rmsprop/Sub:Sub", (8.0, 8.5)),
    ]
    found = step_time_breakdown.parts(operations, "/rmsprop/", whole_s=10.0, waited_s=0.5, steps=10)
    assert [part.ms for part in found] == pytest.approx([500, 150, 50, 300])
    assert sum(part.share for part in found) == pytest.approx(1)
    with pytest.raises(BenchmarkError, match="no operation"):
        step_time_breakdown.parts(operations, "/adam/", 10.0, 0.5, 10)


def test_command_without_data_says_so(tmp_path: Path) -> None:
    command = [*COMMAND, "--data", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "train-images" in done.stderr
    assert "Traceback" not in done.stderr


def test_table_of_processes_says_how_far_their_weights_are_from_those_of_one() -> None:
    results = [
        ProcessesResult(1, [2.0, 2.2, 2.1], 100, 1.0, 0.0, 0.0),
        ProcessesResult(2, [1.0, 1.4, 1.2], 100, 1.75, 3.4e-7, 1e-6),
    ]
    *_, one, two = processes_table(results).splitlines()
    assert cells_of(one) == ["1", "2.1 (2.0..2.2)", "47.6", "1.00", "0e+00", "0e+00"]
    assert cells_of(two) == ["2", "1.2 (1.0..1.4)", "83.3", "1.75", "3e-07", "1e-06"]

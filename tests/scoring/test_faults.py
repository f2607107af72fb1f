"""Workers and drivers that are killed, and shards that kill: each image has its row, once."""

import os
import select
import signal
from pathlib import Path

import pytest

from convserve_scoring.folders import open_folder
from convserve_scoring.plan import read_plan
from tests.scoring.jobs import (
    DAMAGED,
    POISON,
    Gate,
    finished,
    plan,
    rows,
    score,
    start,
    write_images,
)

IMAGES = 24


def attempts(target: Path) -> list[str]:
    return [name for name, _ in open_folder(str(target)).files("attempts")]


def test_killed_worker_is_replaced_and_its_shard_is_done_once(tmp_path: Path, model: Path) -> None:
    gate = Gate.made(tmp_path / "gate")
    names = write_images(tmp_path / "images", IMAGES, {9: gate.content, 20: DAMAGED})
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    run = start("run", target, "--workers", "2")
    os.kill(gate.reached_by(), signal.SIGKILL)
    status, out, err = finished(run)
    assert (status, "killed by SIGKILL; a shard is begun" in err) == (0, True), err
    assert "6 shards with 24 images scored, 2 of them with an error" in out
    assert rows(target)["path"].to_pylist() == names
    assert attempts(target) == []
    assert score("check", target)[0] == 0


def test_killed_driver_leaves_no_worker_and_the_next_one_goes_on(
    tmp_path: Path, model: Path
) -> None:
    gate = Gate.made(tmp_path / "gate")
    names = write_images(tmp_path / "images", IMAGES, {9: gate.content})
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model, "--batch", "1")
    run = start("run", target, "--workers", "1")
    worker = os.pidfd_open(gate.reached_by())
    # One after the other: those before the gate are done, the others are not.
    done = {path.name for path in (target / "rows").iterdir()}
    assert done == {"packed-000000.parquet", "packed-000001.parquet"}
    run.kill()
    run.wait()
    assert len(attempts(target)) == 1
    gate.open()
    _wait_for_end(worker)
    finished(run)
    # The worker has seen that its driver is gone: what it left undone was not the shard's fault.
    assert attempts(target) == []
    assert {path.name for path in (target / "rows").iterdir()} == done
    assert score("check", target)[0] == 3
    status, out, _ = score("run", target, "--workers", "2")
    assert (status, "4 shards with 16 images scored" in out, "2 done before" in out) == (
        0,
        True,
        True,
    )
    assert rows(target)["path"].to_pylist() == names
    assert score("check", target)[0] == 0


def test_shard_that_kills_is_begun_three_times_and_named_and_the_rest_is_done(
    tmp_path: Path, model: Path
) -> None:
    write_images(tmp_path / "images", IMAGES, {9: POISON})
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    status, out, err = score("run", target)
    assert status == 3
    assert "5 shards with 20 images scored" in out
    assert "1 failed" in out
    assert "packed-000002.parquet: the process ended" in out
    assert err.count("a shard is begun 3 times") == 3
    status, out, _ = score("check", target)
    assert (status, "whole shards: 5 of 6;" in out) == (3, True)
    assert "packed-000002.parquet: the process ended while it scored this shard: killed by" in out
    # No more attempts, whoever asks; until somebody says so.
    status, out, err = score("run", target)
    assert (status, err) == (3, "")
    assert "1 failed" in out
    status, out, err = score("run", target, "--retry-failed")
    assert (status, err.count("a shard is begun 3 times")) == (3, 3)


def test_process_that_hangs_ends_itself_and_its_shard_is_begun_again(
    tmp_path: Path, model: Path
) -> None:
    gate = Gate.made(tmp_path / "gate")
    names = write_images(tmp_path / "images", IMAGES, {9: gate.content})
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model, "--hang-s", "5")
    run = start("run", target, "--workers", "2")
    worker = os.pidfd_open(gate.reached_by())
    # Nobody opens the gate.
    _wait_for_end(worker)
    status, out, err = finished(run)
    assert (status, "6 shards with 24 images scored" in out) == (0, True), err
    assert "packed-000002.parquet: the process ended while it scored this shard: exit status" in err
    assert "Timeout (0:00:05)!" in err
    assert "_score_shard" in err
    assert rows(target)["path"].to_pylist() == names


def test_attempts_are_counted_over_drivers_that_are_killed_with_their_worker(
    tmp_path: Path, model: Path
) -> None:
    # As a machine is lost, or the memory of a container is used up: nobody can say what happened.
    images = tmp_path / "images"
    target = tmp_path / "scored"
    gate = Gate.made(tmp_path / "gate")
    write_images(images, 4, {1: gate.content})
    plan(images, target, model)
    for number in range(3):
        if number:
            gate.close()
        run = start("run", target, "--workers", "1")
        worker = gate.reached_by()
        run.kill()
        os.kill(worker, signal.SIGKILL)
        finished(run)
        assert len(attempts(target)) == number + 1
    status, out, _ = score("run", target)
    assert (status, "the process ended while it scored this shard" in out) == (3, True)
    assert score("check", target)[0] == 3
    status, out, _ = score("run", target, "--retry-failed")
    assert (status, "1 shard with 4 images scored" in out) == (0, True)
    assert score("check", target)[0] == 0


@pytest.mark.parametrize("engine", ["local", "ray", "dask"])
def test_ctrl_c_ends_all_and_counts_no_attempt(engine: str, tmp_path: Path, model: Path) -> None:
    gate = Gate.made(tmp_path / "gate")
    write_images(tmp_path / "images", IMAGES, {9: gate.content})
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    run = start("run", target, "--workers", "1", "--engine", engine, HOME=str(tmp_path))
    worker = os.pidfd_open(gate.reached_by())
    run.send_signal(signal.SIGINT)
    # It does not give up in time, as one that hangs in a library: it is killed.
    status, _, err = finished(run)
    assert (status, "stopped; go on with the same command" in err) == (130, True)
    _wait_for_end(worker)
    assert attempts(target) == []
    assert score("run", target)[0] == 0
    assert score("check", target)[0] == 0


def test_sigterm_is_143(tmp_path: Path, model: Path) -> None:
    gate = Gate.made(tmp_path / "gate")
    write_images(tmp_path / "images", 4, {1: gate.content})
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    run = start("run", target)
    gate.reached_by()
    run.terminate()
    assert finished(run)[0] == 143


def test_model_that_ends_its_process_is_not_tried_for_ever(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "images", IMAGES)
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    (tmp_path / "hooks").mkdir()
    ending = "import os, sys\nif 'spawn_main' in str(sys.argv + sys.orig_argv):\n    os._exit(9)\n"
    (tmp_path / "hooks" / "sitecustomize.py").write_text(ending)
    status, _, err = score("run", target, PYTHONPATH=str(tmp_path / "hooks"))
    assert (status, "processes end while they load the model: exit status 9" in err) == (1, True)
    assert attempts(target) == []


def test_changed_model_is_refused_by_run_and_check(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "images", IMAGES)
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    planned = read_plan(open_folder(str(target))).model.sha256
    file = target / "models/colours/3/model.onnx"
    file.write_bytes(file.read_bytes() + b"\x00")
    for command in ("run", "check"):
        status, _, err = score(command, target)
        assert (status, f"expected the planned model, SHA-256 {planned}" in err) == (2, True)


def _wait_for_end(pidfd: int) -> None:
    with os.fdopen(pidfd):
        assert select.select([pidfd], [], [], 60)[0]

"""What computes keeps to the quota of a container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convserve_host import cpus
from convserve_trainer.datasets import photo_reader
from convserve_trainer.evaluation import predict
from tests.lib.host.made_up import machine
from tests.trainer.conftest import Published


def test_tensorflow_keeps_to_the_quota_and_else_chooses_itself() -> None:
    code = """
from convserve_host import cpus
from convserve_trainer.nets import keras_backend
for quota in (None, 1, 3):  # TensorFlow takes other numbers until it computes
    cpus.quota_threads = lambda: quota
    keras_backend.load.cache_clear()
    keras_backend.load()
    from tensorflow.config import threading as of
    print(of.get_intra_op_parallelism_threads(), of.get_inter_op_parallelism_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 0\n1 1\n3 3\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("quota", "expected"), [(3, 3), (None, 0)])
def test_onnx_runtime_keeps_to_the_quota_and_else_chooses_itself(
    quota: int | None, expected: int, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "quota_threads", lambda: quota)
    session = predict.session(published.bundle.read_bytes())
    assert session.get_session_options().intra_op_num_threads == expected


def test_photographs_are_decoded_in_as_many_threads_as_the_quota_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    files = {"cpu.max": "300000 100000\n"}
    with machine(tmp_path, "0::/\n", files), photo_reader.threads() as pool:
        assert pool._max_workers == 3

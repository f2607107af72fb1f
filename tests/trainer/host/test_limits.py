"""What may be used, from cgroup files made up in a folder."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from convserve_trainer.data import photo_reader
from convserve_trainer.host import limits
from convserve_trainer.scores import predict
from tests.trainer.conftest import Published

AFFINITY = 8
MEMORY = 2**30
V1 = "12:memory:/job\n5:cpu,cpuacct:/job\n1:name=systemd:/job\n"

Place = Callable[[str, Mapping[str, str]], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Puts this process into a cgroup, /proc/self/cgroup, and its files below the mount."""

    def put(itself: str, files: Mapping[str, str]) -> None:
        (tmp_path / "self").write_text(itself)
        for name, text in files.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(text)

    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:  {MEMORY // 1024} kB\n")
    monkeypatch.setattr(limits, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "SELF", tmp_path / "self")
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(AFFINITY)), raising=False)
    return put


def _v1(quota: str) -> dict[str, str]:
    return {"cpu/job/cpu.cfs_quota_us": quota, "cpu/job/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("itself", "files", "threads"),
    [
        ("0::/job\n", {"job/cpu.max": "200000 100000\n"}, 2),
        ("0::/job\n", {"job/cpu.max": "150000 100000\n"}, 2),
        ("0::/job\n", {"job/cpu.max": "10000 100000\n"}, 1),
        ("0::/pod/job\n", {"pod/job/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        ("0::/hidden\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, None),
        ("0::/job\n", {"job/cpu.max": "800000 100000\n"}, None),
        ("0::/job\n", {"other/cpu.max": "100000 100000\n"}, None),
        (V1, _v1("400000\n"), 4),
        (V1, _v1("-1\n"), None),
        (V1, {}, None),
        ("", {}, None),
    ],
)
def test_cpu_quota_below_the_affinity_leaves_so_many_threads(
    itself: str, files: dict[str, str], threads: int | None, place: Place
) -> None:
    place(itself, files)
    assert limits.quota_threads() == threads
    assert limits.threads() == (threads or AFFINITY)


@pytest.mark.parametrize(
    ("itself", "files", "limit"),
    [
        ("0::/job\n", {"job/memory.max": "4096\n"}, 4096),
        ("0::/pod/job\n", {"pod/job/memory.max": "max\n", "pod/memory.max": "8192\n"}, 8192),
        ("0::/hidden\n", {"memory.max": "4096\n"}, 4096),
        ("0::/job\n", {"job/memory.max": "max\n"}, None),
        (V1, {"memory/job/memory.limit_in_bytes": "4096\n"}, 4096),
        (V1, {"memory/memory.limit_in_bytes": "4096\n"}, 4096),
        (V1, {"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
    ],
)
def test_memory_limit_is_the_tightest_of_our_groups(
    itself: str, files: dict[str, str], limit: int | None, place: Place
) -> None:
    place(itself, files)
    assert limits.memory_limit() == limit
    assert limits.available_bytes() == (limit or MEMORY)


def test_memory_beyond_a_limit_that_is_larger_is_not_there(place: Place) -> None:
    place("0::/\n", {"memory.max": f"{2 * MEMORY}\n"})
    assert limits.available_bytes() == MEMORY


def test_memory_where_the_system_does_not_say_is_a_guess(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("", {})
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "none")
    assert limits.available_bytes() > 2**20


EVENTS = "low 0\nhigh 0\nmax 31\noom 2\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("itself", "files", "kills"),
    [
        ("0::/job\n", {"job/memory.events": EVENTS.format(3)}, 3),
        ("0::/hidden\n", {"memory.events": EVENTS.format(0)}, 0),
        (V1, {"memory/job/memory.oom_control": CONTROL.format(2)}, 2),
        (V1, {"memory/memory.oom_control": CONTROL.format(1)}, 1),
        (V1, {"memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, None),
        ("", {}, None),
    ],
)
def test_kills_are_those_of_our_own_group(
    itself: str, files: dict[str, str], kills: int | None, place: Place
) -> None:
    place(itself, files)
    assert limits.out_of_memory_kills() == kills


@pytest.mark.parametrize(("quota", "expected"), [(1, 1), (3, 3), (None, 0)])
def test_tensorflow_keeps_to_the_quota_and_else_chooses_itself(
    quota: int | None, expected: int
) -> None:
    code = f"""
from convserve_trainer.host import limits
from convserve_trainer.nets import keras_backend
limits.quota_threads = lambda: {quota}
keras_backend.load()
from tensorflow.config import threading
print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected} {expected}\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("quota", "expected"), [(3, 3), (None, 0)])
def test_onnx_runtime_keeps_to_the_quota_and_else_chooses_itself(
    quota: int | None, expected: int, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "quota_threads", lambda: quota)
    session = predict.session(published.bundle.read_bytes())
    assert session.get_session_options().intra_op_num_threads == expected


def test_photographs_are_decoded_in_as_many_threads_as_the_quota_leaves(place: Place) -> None:
    place("0::/\n", {"cpu.max": "300000 100000\n"})
    with photo_reader._threads() as pool:
        assert pool._max_workers == 3

"""How many CPUs we may use, from cgroup files made up in a folder."""

import os
from pathlib import Path

import pytest

from convserve_host.cpus import available_cpus, quota_threads, threads
from tests.lib.host.made_up import machine

AFFINITY = 16


@pytest.fixture(autouse=True)
def affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: set(range(AFFINITY)), raising=False
    )


def cpus(folder: Path, self_cgroup: str, files: dict[str, str]) -> float:
    """What is found with these files below the cgroup mount, and this /proc/self/cgroup."""
    with machine(folder, self_cgroup, files):
        return available_cpus()


def test_no_cgroup_files_is_the_affinity(tmp_path: Path) -> None:
    assert cpus(tmp_path, "", {}) == AFFINITY


def test_no_affinity_on_this_system_is_the_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpus(tmp_path, "", {}) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus(tmp_path, "", {}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("max 100000\n", None),
        ("1600000 100000\n", None),
        ("", None),
    ],
)
def test_threads_are_the_quota_rounded_up(text: str, expected: int | None, tmp_path: Path) -> None:
    with machine(tmp_path, "0::/job\n", {"job/cpu.max": text}):
        assert quota_threads() == expected
        assert threads() == (expected or AFFINITY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2.0),
        ("150000 100000\n", 1.5),
        ("50000 100000\n", 0.5),
        ("10000 20000\n", 0.5),
        ("max 100000\n", AFFINITY),
        ("6400000 100000\n", AFFINITY),
        ("", AFFINITY),
    ],
)
def test_v2_quota_is_quota_by_period(text: str, expected: float, tmp_path: Path) -> None:
    assert cpus(tmp_path, "0::/pod/server\n", {"pod/server/cpu.max": text}) == expected


@pytest.mark.parametrize("tightest", ["", "kube/", "kube/pod/", "kube/pod/server/"])
def test_v2_nested_limits_tightest_binds(tightest: str, tmp_path: Path) -> None:
    files = {
        f"{folder}cpu.max": "max 100000\n"
        for folder in ("", "kube/", "kube/pod/", "kube/pod/server/")
    }
    files["kube/cpu.max"] = "800000 100000\n"
    files[f"{tightest}cpu.max"] = "300000 100000\n"
    assert cpus(tmp_path, "0::/kube/pod/server\n", files) == 3.0


def test_v2_limit_on_another_group_is_not_ours(tmp_path: Path) -> None:
    files = {"other/cpu.max": "100000 100000\n", "pod/below/cpu.max": "100000 100000\n"}
    assert cpus(tmp_path, "0::/pod\n", files) == AFFINITY


def test_v2_namespace_without_our_path_is_the_root(tmp_path: Path) -> None:
    files = {"cpu.max": "250000 100000\n"}
    assert cpus(tmp_path, "0::/docker/0123abc\n", files) == 2.5
    assert cpus(tmp_path, "0::/\n", files) == 2.5


def test_limits_above_the_mount_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert cpus(tmp_path, "0::/pod\n", {}) == AFFINITY


V1 = "12:memory:/pod\n5:cpu,cpuacct:/pod\n1:name=systemd:/pod\n"


@pytest.mark.parametrize(
    ("quota", "expected"), [("400000\n", 4.0), ("25000\n", 0.25), ("-1\n", AFFINITY)]
)
def test_v1_quota_is_quota_by_period(quota: str, expected: float, tmp_path: Path) -> None:
    files = {"cpu/pod/cpu.cfs_quota_us": quota, "cpu/pod/cpu.cfs_period_us": "100000\n"}
    assert cpus(tmp_path, V1, files) == expected


@pytest.mark.parametrize("folder", ["cpu/", "cpu/pod/"])
def test_v1_nested_limits_tightest_binds(folder: str, tmp_path: Path) -> None:
    files = {}
    for each in ("cpu/", "cpu/pod/"):
        files[f"{each}cpu.cfs_quota_us"] = "200000\n" if each == folder else "500000\n"
        files[f"{each}cpu.cfs_period_us"] = "100000\n"
    assert cpus(tmp_path, V1, files) == 2.0


def test_v1_quota_without_period_is_no_limit(tmp_path: Path) -> None:
    assert cpus(tmp_path, V1, {"cpu/pod/cpu.cfs_quota_us": "100000\n"}) == AFFINITY


def test_v1_other_controllers_are_no_limit(tmp_path: Path) -> None:
    files = {"cpu/pod/cpu.cfs_quota_us": "100000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}
    assert cpus(tmp_path, "12:cpuset:/pod\n11:memory:/pod\n", files) == AFFINITY


def test_affinity_below_the_quota_binds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert cpus(tmp_path, "0::/\n", {"cpu.max": "200000 100000\n"}) == 1


def test_this_machine_has_some() -> None:
    assert 0 < available_cpus() <= AFFINITY

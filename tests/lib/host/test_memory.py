"""How much memory we may use, and who was killed for it, from files made up in a folder."""

import math
from pathlib import Path

import pytest

from convserve_host.memory import available_bytes, cgroup_limit, memory_limit, oom_kills, own_bytes
from tests.lib.host.made_up import machine

MIB = 2**20
MACHINE = 16 * 1024 * MIB
FREE = 1024 * MIB
MEMINFO = (
    f"MemTotal:       {MACHINE // 1024} kB\nMemFree:  1 kB\nMemAvailable:   {FREE // 1024} kB\n"
)
V1 = "12:memory:/pod/server\n5:cpu,cpuacct:/pod/server\n1:name=systemd:/pod\n"
V1_NONE = "9223372036854771712\n"


def limit(folder: Path, self_cgroup: str, files: dict[str, str], meminfo: str = MEMINFO) -> float:
    with machine(folder, self_cgroup, files, meminfo):
        return memory_limit()


def kills(folder: Path, self_cgroup: str, files: dict[str, str]) -> int | None:
    with machine(folder, self_cgroup, files):
        return oom_kills()


def test_no_cgroup_files_is_the_machine(tmp_path: Path) -> None:
    assert limit(tmp_path, "", {}) == MACHINE


def test_limit_of_a_cgroup_is_none_where_only_the_machine_has_one(tmp_path: Path) -> None:
    with machine(tmp_path, "0::/\n", {"memory.max": "max\n"}, MEMINFO):
        assert cgroup_limit() is None
    with machine(tmp_path, "0::/\n", {"memory.max": f"{2 * MACHINE}\n"}, MEMINFO):
        assert cgroup_limit() == 2 * MACHINE


def test_nothing_known_is_no_limit(tmp_path: Path) -> None:
    with machine(tmp_path, "", {}):
        assert memory_limit() == math.inf
        assert cgroup_limit() is None
        assert oom_kills() is None
        assert available_bytes() > MIB, "a guess"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4096\n", 4096), ("max\n", FREE), (f"{2 * FREE}\n", FREE)],
)
def test_available_is_what_is_free_below_the_limit(
    text: str, expected: int, tmp_path: Path
) -> None:
    with machine(tmp_path, "0::/\n", {"memory.max": text}, MEMINFO):
        assert available_bytes() == expected


V2_USED = {"memory.max": f"{600 * MIB}\n", "memory.current": f"{500 * MIB}\n"}
V1_USED = {
    "memory/memory.limit_in_bytes": f"{600 * MIB}\n",
    "memory/memory.usage_in_bytes": f"{500 * MIB}\n",
}


@pytest.mark.parametrize(
    ("self_cgroup", "files", "expected"),
    [
        ("0::/\n", V2_USED, 100 * MIB),
        ("0::/\n", {**V2_USED, "memory.stat": f"anon 1\ninactive_file {50 * MIB}\n"}, 150 * MIB),
        ("0::/\n", {**V2_USED, "memory.current": f"{700 * MIB}\n"}, 0),
        # What is above ours limits as well.
        ("0::/pod\n", {**V2_USED, "pod/memory.max": f"{400 * MIB}\n"}, 100 * MIB),
        ("4:memory:/\n", V1_USED, 100 * MIB),
        (
            "4:memory:/\n",
            {**V1_USED, "memory/memory.stat": f"total_inactive_file {50 * MIB}\n"},
            150 * MIB,
        ),
    ],
)
def test_available_is_what_a_cgroup_does_not_use_yet(
    self_cgroup: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    with machine(tmp_path, self_cgroup, files, MEMINFO):
        assert available_bytes() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("536870912\n", 512 * MIB),
        ("max\n", MACHINE),
        ("", MACHINE),
        (f"{4 * MACHINE}\n", MACHINE),
    ],
)
def test_v2_limit_is_the_smaller_of_cgroup_and_machine(
    text: str, expected: float, tmp_path: Path
) -> None:
    assert limit(tmp_path, "0::/pod/server\n", {"pod/server/memory.max": text}) == expected


@pytest.mark.parametrize("tightest", ["", "kube/", "kube/pod/", "kube/pod/server/"])
def test_v2_nested_limits_tightest_binds(tightest: str, tmp_path: Path) -> None:
    folders = ("", "kube/", "kube/pod/", "kube/pod/server/")
    files = {f"{folder}memory.max": "max\n" for folder in folders}
    files["kube/memory.max"] = f"{1024 * MIB}\n"
    files[f"{tightest}memory.max"] = f"{300 * MIB}\n"
    assert limit(tmp_path, "0::/kube/pod/server\n", files) == 300 * MIB


def test_v2_limit_on_another_group_is_not_ours(tmp_path: Path) -> None:
    files = {"other/memory.max": "1048576\n", "pod/below/memory.max": "1048576\n"}
    assert limit(tmp_path, "0::/pod\n", files) == MACHINE


@pytest.mark.parametrize(
    ("self_cgroup", "file"),
    [
        ("0::/docker/0123abc\n", "memory.max"),
        ("0::/\n", "memory.max"),
        ("4:memory:/docker/0123abc\n", "memory/memory.limit_in_bytes"),
    ],
)
def test_namespace_without_our_path_is_the_root(
    self_cgroup: str, file: str, tmp_path: Path
) -> None:
    assert limit(tmp_path, self_cgroup, {file: f"{256 * MIB}\n"}) == 256 * MIB


@pytest.mark.parametrize(
    ("text", "expected"), [(f"{512 * MIB}\n", 512 * MIB), (V1_NONE, MACHINE), ("", MACHINE)]
)
def test_v1_limit_that_is_huge_is_none(text: str, expected: float, tmp_path: Path) -> None:
    files = {"memory/pod/server/memory.limit_in_bytes": text}
    assert limit(tmp_path, V1, files) == expected
    # Also where the machine does not say how much it has.
    assert limit(tmp_path, V1, files, "") == (math.inf if expected == MACHINE else expected)


@pytest.mark.parametrize("tightest", ["memory/", "memory/pod/", "memory/pod/server/"])
def test_v1_nested_limits_tightest_binds(tightest: str, tmp_path: Path) -> None:
    files = {
        f"{folder}memory.limit_in_bytes": V1_NONE
        for folder in ("memory/", "memory/pod/", "memory/pod/server/")
    }
    files[f"{tightest}memory.limit_in_bytes"] = f"{300 * MIB}\n"
    assert limit(tmp_path, V1, files) == 300 * MIB


def test_v1_other_controllers_are_no_limit(tmp_path: Path) -> None:
    files = {"memory/pod/memory.limit_in_bytes": "1048576\n"}
    assert limit(tmp_path, "12:cpuset:/pod\n", files) == MACHINE


def test_v2_kills_are_those_of_our_own_cgroup(tmp_path: Path) -> None:
    events = "low 0\nhigh 0\nmax 812\noom 9\noom_kill {}\noom_group_kill 0\n"
    files = {
        "pod/memory.events": events.format(7),
        "pod/server/memory.events": events.format(3),
    }
    assert kills(tmp_path, "0::/pod/server\n", files) == 3


def test_v1_kills_are_those_of_our_own_cgroup(tmp_path: Path) -> None:
    control = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
    files = {
        "memory/memory.oom_control": control.format(9),
        "memory/pod/server/memory.oom_control": control.format(2),
    }
    assert kills(tmp_path, V1, files) == 2


def test_kernel_that_does_not_count_kills_says_none(tmp_path: Path) -> None:
    files = {"memory/pod/server/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}
    assert kills(tmp_path, V1, files) is None


def test_this_machine_has_some() -> None:
    assert 0 < memory_limit() < math.inf
    assert (oom_kills() or 0) >= 0


def test_own_bytes_grow_with_what_is_allocated() -> None:
    before = own_bytes()
    held = bytearray(b"x" * (64 * MIB))
    assert own_bytes() - before > 32 * MIB
    del held

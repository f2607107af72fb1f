"""python -m benchmarks: each program is listed, with a command that is its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import Benchmark, benchmarks

ROOT = Path(__file__).parents[2]
#: Without a GPU or a container engine, each can at least say what its options are.
LISTED = list(benchmarks())
#: Subjects, and which other folders of benchmarks each may import.
SUBJECTS = {
    "best": {"harness"},
    "capacity": {"harness"},
    "containers": {"harness"},
    "gpu": {"harness"},
    "harness": set[str](),
    "imaging": {"harness"},
    "peers": {"harness"},
    "robustness": {"harness"},
    "scoring": {"harness"},
    "serving": {"harness"},
    "training": {"harness"},
}


def test_list_names_every_benchmark_with_its_command() -> None:
    command = [sys.executable, "-S", "-m", "benchmarks"]  # -S: no package is there to import
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for one in LISTED:
        assert f"\n  {one.summary}\n      {one.usage[0]}\n" in done.stdout
    assert done.stderr == ""


def test_every_file_with_options_is_listed() -> None:
    programs = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for file in (ROOT / "benchmarks").rglob("*.py")
        if "execute(_parser(), run)" in file.read_text()
    }
    assert programs == {one.module for one in LISTED}
    assert all(one.summary.startswith(("Measures ", "Estimates ")) for one in LISTED)


@pytest.mark.parametrize("one", LISTED, ids=lambda one: one.module)
def test_commands_shown_are_accepted(one: Benchmark) -> None:
    done = subprocess.run(
        [sys.executable, "-m", one.module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {one.module} ")
    for usage in one.usage:
        for option in (word for word in usage.split() if word.startswith("--")):
            assert option in done.stdout, usage


@pytest.mark.parametrize("subject", SUBJECTS)
def test_subject_imports_the_harness_and_itself(subject: str) -> None:
    found = set()
    for file in (ROOT / "benchmarks" / subject).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
                found.add(str(node.module).split(".")[1])
    assert found - {subject} <= SUBJECTS[subject]


def test_subjects_are_these() -> None:
    folders = {path.parent.name for path in (ROOT / "benchmarks").glob("*/*.py")}
    assert folders == set(SUBJECTS)

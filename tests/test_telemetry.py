"""ONNX Runtime's telemetry is off before ONNX Runtime is imported, wherever that is."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VARIABLE = "ORT_DISABLE_TELEMETRY"
SWITCH = f"os.environ['{VARIABLE}'] = '1'"

#: Packages that import ONNX Runtime. The first file of each that Python runs switches it off.
SWITCHED = {
    "benchmarks": "benchmarks/__init__.py",
    "conformance": "tests/conformance/__init__.py",
    "convserve_server": "server/convserve_server/__init__.py",
    "convserve_trainer": "trainer/convserve_trainer/__init__.py",
    "tests": "tests/conftest.py",  # pytest imports no package
}
#: ONNX Runtime, and what imports it.
IMPORTERS = {"onnxruntime", "onnxslim"}


def sources() -> Iterator[Path]:
    """All Python files that git would commit; new ones too."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            yield ROOT / name


def package_of(file: Path) -> str:
    """The package of a file: the highest folder with an __init__.py, or else the first of all."""
    parts = file.relative_to(ROOT).parts[:-1]
    for depth in range(1, len(parts) + 1):
        if (ROOT.joinpath(*parts[:depth]) / "__init__.py").exists():
            return parts[depth - 1]
    return parts[0] if parts else file.name


def imported(file: Path) -> set[str]:
    """Top-level names that a file imports anywhere in it, also by a string to import_module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in {"import_module", "__import__", "importorskip"}:
                found.add(str(node.args[0].value).partition(".")[0])
    return found


def first_statement(file: Path) -> str:
    """The first statement after the docstring that is more than an import of what is harmless."""
    for node in ast.parse(file.read_text()).body[1:]:
        names: set[str] = set()
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {str(node.module).partition(".")[0]}
        if not names or names & (IMPORTERS | SWITCHED.keys()):
            return ast.unparse(node)
    return ""


def test_who_imports_onnxruntime_is_in_a_package_that_switches_its_telemetry_off() -> None:
    importers = {file: package_of(file) for file in sources() if imported(file) & IMPORTERS}
    assert {"convserve_server", "convserve_trainer", "benchmarks"} <= set(importers.values())
    outside = {str(file) for file, package in importers.items() if package not in SWITCHED}
    assert outside == set()


@pytest.mark.parametrize("file", SWITCHED.values())
def test_the_switch_is_the_first_thing_that_runs(file: str) -> None:
    assert first_statement(ROOT / file) == SWITCH


@pytest.mark.parametrize("package", ["benchmarks", "convserve_server", "convserve_trainer"])
@pytest.mark.parametrize("before", [None, "", "0"])
def test_an_import_of_the_package_is_enough_whatever_was_set(
    package: str, before: str | None
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if before is not None:
        environment[VARIABLE] = before
    code = f"import os, {package}; print(os.environ['{VARIABLE}'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environment, text=True, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"


def test_every_image_has_it_set() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    bases = {line.split()[-1]: line.split()[0] for line in (s.splitlines()[0] for s in stages)}
    of = {stage.splitlines()[0].split()[-1]: stage for stage in stages}
    for image in ("server", "client", "trainer"):
        stage, content = image, ""
        while stage in of:
            content += of[stage]
            stage = bases[stage]
        assert re.search(rf"^ENV .*\b{VARIABLE}=1\b", content, re.MULTILINE), image


def test_imports_are_seen_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "import importlib\n"
        "def late():\n"
        "    import onnxslim.core\n"
        "    from onnxruntime import capi\n"
        "    importlib.import_module('keras.ops')\n"
    )
    assert imported(file) == {"importlib", "onnxslim", "onnxruntime", "keras"}

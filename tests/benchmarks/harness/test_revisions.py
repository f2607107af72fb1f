"""benchmarks.serving --against: another revision is served as it was."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import revisions
from benchmarks.harness.command import BenchmarkError
from benchmarks.harness.revisions import ROOT, Source, checked_out
from benchmarks.harness.servers import FRONTS
from benchmarks.harness.table import CELLS
from benchmarks.serving.__main__ import against
from tests.benchmarks.tables import cells_of, figures_of
from tests.bundles import write_bundle

COMMAND = (sys.executable, "-m", "benchmarks.serving")
LOCK = "locks/serve.txt"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two revisions, of which the first one's server says "first"."""
    folder = tmp_path / "repository"
    (folder / "server/convserve_server").mkdir(parents=True)
    (folder / "locks").mkdir()
    (folder / "server/convserve_server/__init__.py").touch()
    (folder / LOCK).write_text((ROOT / LOCK).read_text())
    git(tmp_path, "init", "--quiet", str(folder))
    for name in ("first", "second"):
        (folder / "server/convserve_server/main.py").write_text(f"print({name!r})\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", name)
        git(folder, "tag", name)
    return folder


def test_revision_is_run_as_it_was(repository: Path, tmp_path: Path) -> None:
    source = checked_out("first", repository, tmp_path / "revisions")
    commit = git(repository, "rev-parse", "first")
    assert source.name == f"first ({commit[:7]})"
    assert source.tree == tmp_path / "revisions" / commit[:12]
    assert source.python == Path(sys.executable)
    done = subprocess.run(
        [source.python, "-m", "convserve_server.main"],
        env=source.environ, cwd=source.tree, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "first\n"
    # Nothing is checked out twice.
    assert checked_out("first", repository, tmp_path / "revisions") == source
    other = checked_out("HEAD", repository, tmp_path / "revisions")
    assert other.tree != source.tree


def test_revision_with_other_packages_has_an_environment_of_its_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str | Path], folder: Path, more: object = None) -> str:
        asked.append([str(part) for part in command])
        return f"{folder}/server/convserve_server/main.py"

    checked_out("first", repository, tmp_path / "revisions")
    (repository / LOCK).write_text("another==1\n")
    monkeypatch.setattr(revisions, "_run", run)
    source = checked_out("first", repository, tmp_path / "revisions")
    assert source.python == source.tree / ".venv/bin/python"
    made, installed, looked = asked
    assert made == [str(source.tree / "locks/environment.sh"), ".venv", LOCK]
    assert installed[:3] == [looked[0], "-m", "pip"] == [str(source.python), "-m", "pip"]


def test_revision_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="git knows no revision 'third'"):
        checked_out("third", repository, tmp_path / "revisions")
    assert not (tmp_path / "revisions").exists()


def test_code_from_elsewhere_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=f"expected code of {tmp_path}"):
        Source("x", tmp_path, Path(sys.executable)).check()


def test_each_front_is_beside_itself_and_beside_itself_again(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    bundle = tmp_path / "models/mnist/1/model.onnx"
    groups = against(Source("old", tmp_path, Path(sys.executable)), bundle, "--workers 1")
    assert [[server.name for server in group] for group in groups] == [
        [f"{front} --workers 1, {name}" for name in ("old", "old, again", "today")]
        for front in FRONTS
    ]


@pytest.fixture
def last_commit() -> Iterator[str]:
    """Its name; a worktree that was not there before is gone afterwards."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a checkout of git")
    commit = git(ROOT, "rev-parse", "HEAD")
    tree = revisions.FOLDER / commit[:12]
    there = tree.exists()
    yield commit
    if tree.exists() and not there:
        git(ROOT, "worktree", "remove", "--force", str(tree))


def test_command_measures_today_beside_the_last_commit(last_commit: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    file = tmp_path / "figures.json"
    options = ["--models", str(tmp_path / "models"), "--against", "HEAD", "--rounds", "1"]
    options += ["--seconds", "0.2", "--driver", "own", "--json", str(file)]
    options += ["--flags", "--workers 1"]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, _, _, _, *lines = done.stdout.splitlines()
    found = [cells_of(line) for line in lines]
    name = f"HEAD ({last_commit[:7]})"
    servers = [f"{name}", f"{name}, again", "today"]
    assert [row[:3] for row in found] == [
        [str(cell.callers), str(cell.images), f"{front} --workers 1, {server}"]
        for front in FRONTS
        for cell in CELLS
        for server in servers
    ]
    for row in found:
        assert min(figures_of(row[3:])) >= 0
        if row[2].endswith(")"):
            assert row[-2:] == ["1.00", "1.00"]
    assert len(json.loads(file.read_text())["rows"]) == len(found)

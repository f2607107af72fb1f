"""Other revisions of this repository, checked out beside it and served as they were."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.harness.command import BenchmarkError, tell

ROOT = Path(__file__).parents[2]
#: Where other revisions are checked out; git does not see it.
FOLDER = ROOT / ".revisions"
#: Folders with packages, as pyproject.toml names them, or did.
_PACKAGES_IN = ("clients", "imaging", "lib", "protos", "server", "trainer")
_LOCK = "locks/serve.txt"
_TIMEOUT_S = 1800.0
_FILE_OF_SERVER = "import importlib.util as u; print(u.find_spec('convserve_server.main').origin)"


@dataclass(frozen=True)
class Source:
    """Code that a server can be started from.

    Args:
        name: for the table.
        tree: folder of the checkout.
        python: interpreter of its environment.
    """

    name: str
    tree: Path
    python: Path

    @classmethod
    def today(cls) -> Self:
        """What is checked out here."""
        return cls("today", ROOT, Path(sys.executable))

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs so that it imports this code and no other."""
        return {"PYTHONPATH": os.pathsep.join(str(self.tree / name) for name in _PACKAGES_IN)}

    def check(self) -> None:
        """Make sure of that.

        Raises:
            BenchmarkError: if the server's code would come from elsewhere.
        """
        found = _run([self.python, "-c", _FILE_OF_SERVER], self.tree, self.environ).strip()
        if not Path(found).is_relative_to(self.tree):
            raise BenchmarkError(f"{self.name}: expected code of {self.tree}, got {found}")


def checked_out(revision: str, repository: Path = ROOT, folder: Path = FOLDER) -> Source:
    """A revision as a worktree of its own, with our environment where it needs the same packages.

    Where its lock is another one, an environment is made from that, once.

    Args:
        revision: as git understands it.
        repository: of which it is one.
        folder: of the worktrees; a revision is checked out once.

    Raises:
        BenchmarkError: if there is no such revision, or no environment can be made for it.
    """
    commit = [
        "git",
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{revision}^{{commit}}",
    ]
    done = subprocess.run(commit, cwd=repository, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"--against: git knows no revision {revision!r}")
    sha = done.stdout.strip()
    tree = folder / sha[:12]
    if not tree.is_dir():
        tell(f"checking out {sha[:12]} in {tree}")
        _run(["git", "worktree", "prune"], repository)
        _run(["git", "worktree", "add", "--detach", "--quiet", tree, sha], repository)
    source = Source(f"{revision} ({sha[:7]})", tree, _python(tree, repository))
    source.check()
    return source


def _python(tree: Path, repository: Path) -> Path:
    if (tree / _LOCK).read_bytes() == (repository / _LOCK).read_bytes():
        return Path(sys.executable)
    tell(f"{tree} has other packages in {_LOCK}: making an environment from it, unless it is made")
    ours = {"PYTHON": os.path.realpath(sys.executable)}
    _run([tree / "locks/environment.sh", ".venv", _LOCK], tree, ours)
    python = tree / ".venv/bin/python"
    # For its version, which the server says: the code itself comes from the tree.
    quiet = ["--disable-pip-version-check", "install", "-qq", "--no-deps"]
    _run([python, "-m", "pip", *quiet, tree], tree)
    return python


def _run(command: Sequence[str | Path], folder: Path, more: Mapping[str, str] | None = None) -> str:
    """What it prints; raises BenchmarkError with what it says if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **(more or {})}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{command[0]}: not done within {error.timeout:g} s") from error
    if done.returncode:
        words = " ".join(map(str, command))
        raise BenchmarkError(f"{words} failed:\n{done.stdout}{done.stderr}".strip())
    return done.stdout

"""An environment for each peer, made once from its pinned requirements by venv and pip."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.command import tell

_TIMEOUT_S = 1200.0
#: Written last: a copy of the requirements that are installed.
_INSTALLED = "installed.txt"


class NotInstalled(Exception):
    """The packages cannot be installed; str() is pip's reason."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Args:
        folder: where it is, or will be.
        requirements: file for pip, all versions pinned.
    """

    folder: Path
    requirements: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def make(self) -> None:
        """Install the requirements into it, unless they are.

        Raises:
            NotInstalled: if that fails; another try begins anew.
        """
        wanted = self.requirements.read_text()
        installed = self.folder / _INSTALLED
        if installed.exists() and installed.read_text() == wanted:
            return
        tell(f"installing {self.requirements.name} into {self.folder}")
        self._run([sys.executable, "-m", "venv", "--clear", str(self.folder)])
        pip = [str(self.python), "-m", "pip", "install", "--quiet"]
        self._run([*pip, "--disable-pip-version-check", "--requirement", str(self.requirements)])
        installed.write_text(wanted)

    def _run(self, command: list[str]) -> None:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise NotInstalled(f"not done within {error.timeout:g} s") from error
        if done.returncode:
            raise NotInstalled(_reason(f"{done.stdout}\n{done.stderr}"))


def _reason(output: str) -> str:
    """The line that says why: the first that is marked so, or else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = (line for line in lines if line.startswith("ERROR:"))
    return next(marked, lines[-1] if lines else "no reason given").removeprefix("ERROR:").strip()


def pinned(requirements: Path) -> dict[str, str]:
    """Version of each package in a file of lines package==version."""
    pairs = (line.partition("==") for line in requirements.read_text().splitlines())
    return {name.partition("[")[0]: version for name, _, version in pairs if version}

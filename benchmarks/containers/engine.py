"""A container engine, by its commands docker and docker compose."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.harness.command import BenchmarkError
from convserve import Health
from convserve.command.health_check import check
from convserve.errors import ConvserveError

_WAIT_S = 300.0
_CHECK_S = 2.0
#: Of building images.
MAKE_S = 1200.0


class EngineError(BenchmarkError):
    """There is no engine, or a command of it failed; str() has its output."""


def run(
    command: Sequence[str | Path],
    environ: Mapping[str, str],
    folder: Path | None = None,
    timeout_s: float = _WAIT_S,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; output and errors are in stdout together."""
    return subprocess.run(
        command, env=environ, cwd=folder, timeout=timeout_s, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def until(true: Callable[[], bool], what: str, timeout_s: float = _WAIT_S) -> None:
    """Wait for a state that nobody announces.

    Raises:
        EngineError: saying what, if it does not come in time.
    """
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            raise EngineError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)


def is_serving(address: str) -> bool:
    """Whether a server is there and answers calls."""
    try:
        return check(address, "", _CHECK_S) is Health.SERVING
    except ConvserveError:
        return False


class Engine:
    """The engine that the environment names.

    Args:
        environ: where DOCKER_HOST may say which; our own settings in it are left out.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        own = {name: value for name, value in environ.items() if not name.startswith("CONVSERVE_")}
        # The classic builder is everywhere; what is built is the same.
        self.environ = {**own, "DOCKER_BUILDKIT": "0", "COMPOSE_ANSI": "never"}

    @property
    def runs(self) -> bool:
        """Whether there is one that answers."""
        return (
            bool(shutil.which("docker")) and run(["docker", "info"], self.environ).returncode == 0
        )

    @cached_property
    def compose(self) -> list[str]:
        """How docker compose is called here: version 2, or else 1."""
        two = run(["docker", "compose", "version"], self.environ).returncode == 0
        return ["docker", "compose"] if two else ["docker-compose"]

    def try_docker(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run docker, which may fail."""
        return run(["docker", *arguments], self.environ)

    def docker(self, *arguments: str | Path) -> str:
        """Runs docker; returns its output.

        Raises:
            EngineError: if it failed.
        """
        done = self.try_docker(*arguments)
        if done.returncode:
            raise EngineError(f"docker {' '.join(map(str, arguments))}:\n{done.stdout}")
        return done.stdout.strip()

    def inspect(self, thing: str) -> Any:
        """All that the engine knows of a container or an image."""
        (known,) = json.loads(self.docker("inspect", thing))
        return known

    def run_alone(self, image: str, *command: str, options: Sequence[str] = ()) -> tuple[int, str]:
        """Run a container to its end; returns its exit status and output."""
        done = run(["docker", "run", "--rm", *options, image, *command], self.environ)
        return done.returncode, done.stdout

    def status(self, container: str) -> int:
        """Exit status of a container.

        Raises:
            EngineError: if it has not ended.
        """
        state = self.inspect(container)["State"]
        if state["Status"] != "exited":
            raise EngineError(f"{container} has not ended: {state}")
        return int(state["ExitCode"])

    def log(self, container: str) -> str:
        """Both streams of a container."""
        return self.docker("logs", container)

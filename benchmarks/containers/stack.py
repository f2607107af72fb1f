"""docker-compose.yml of this checkout as a project of its own, and clients in its network."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.containers.engine import MAKE_S, Engine, EngineError, run, until

ROOT = Path(__file__).parents[2]


class Stack:
    """The services.

    Args:
        engine: runs them.
        project: its name; containers and volumes are named after it.
        folder: of the checkout.
    """

    def __init__(self, engine: Engine, project: str, folder: Path = ROOT) -> None:
        self.engine = engine
        self.project = project
        self._folder = folder

    def try_compose(
        self, *arguments: str, files: Sequence[str] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run docker compose, with more files and variables of the environment."""
        options = [text for file in ("docker-compose.yml", *files) for text in ("-f", file)]
        return run(
            [*self.engine.compose, *options, "-p", self.project, *arguments],
            {**self.engine.environ, **variables}, self._folder, MAKE_S,
        )  # fmt: skip

    def compose(self, *arguments: str, files: Sequence[str] = (), **variables: str) -> str:
        """Runs docker compose; returns its output.

        Raises:
            EngineError: if it failed.
        """
        done = self.try_compose(*arguments, files=files, **variables)
        if done.returncode:
            raise EngineError(f"docker compose {' '.join(arguments)}:\n{done.stdout}")
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Ids of a service's containers, stopped ones too, by their numbers."""
        label = f"label=com.docker.compose.project={self.project}"
        ids = self.engine.docker(
            "ps", "-aq", "--filter", label,
            "--filter", f"label=com.docker.compose.service={service}",
            "--filter", "label=com.docker.compose.oneoff=False",
        ).split()  # fmt: skip
        return sorted(ids, key=lambda id_: str(self.engine.inspect(id_)["Name"]))

    def entries(self, container: str) -> list[dict[str, Any]]:
        """A server's log, which must be JSON, line by line."""
        return [json.loads(line) for line in self.engine.log(container).splitlines()]

    def serves(self, container: str, model: str) -> bool:
        """Whether every worker of a server has loaded a model version, as mnist/1."""
        loaded = f"{model} is served"
        entries = self.entries(container)
        workers = {entry["process"] for entry in entries if loaded in entry["message"]}
        sized = next((entry for entry in entries if "settings: " in entry["message"]), None)
        if sized is None:
            return False
        settings: dict[str, Any] = json.loads(sized["message"].partition("settings: ")[2])
        return len(workers) >= int(settings["workers"])


class OutageClient:
    """outage_client.py in a container of the stack's network, with the client's image.

    Args:
        stack: in whose network.
        options: of outage_client.py.
    """

    def __init__(self, stack: Stack, *options: str) -> None:
        self._engine = stack.engine
        self._container = stack.engine.docker(
            "run", "-d", "--network", f"{stack.project}_default", "--read-only", "--init",
            "-v", f"{Path(__file__).with_name('outage_client.py')}:/outage_client.py:ro",
            "--entrypoint", "python", "convserve-client", "/outage_client.py", "server:50051",
            *options,
        )  # fmt: skip

    def wait_until_answered(self) -> None:
        """Waits until it has as many answers as --report-after says."""
        until(lambda: "answered" in self._engine.log(self._container), "the client has its answers")

    def stop(self) -> dict[str, Any]:
        """Stops it; returns what it printed.

        Raises:
            EngineError: if it ends with an error.
        """
        self._engine.docker("kill", "--signal", "TERM", self._container)
        status = self._engine.docker("wait", self._container)
        log = self._engine.log(self._container)
        if status != "0":
            raise EngineError(f"the client ended with status {status}:\n{log}")
        printed: dict[str, Any] = json.loads(log.splitlines()[-1])
        return printed

    def remove(self) -> None:
        """Take the container away."""
        self._engine.docker("rm", "-f", self._container)

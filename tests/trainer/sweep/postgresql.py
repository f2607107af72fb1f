"""A PostgreSQL of our own, as Debian has it, with a password and on a free port."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.ports import free_port

USER, PASSWORD = "trainer", "p@ss/word:1"
QUOTED = "p%40ss%2Fword%3A1"


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        port: of 127.0.0.1.
        programs: folder of its programs.
        folder: of its data.
    """

    port: int
    programs: Path
    folder: Path

    def url(self, database: str) -> str:
        """Returns the address of a database, with the password."""
        return f"postgresql://{USER}:{QUOTED}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Makes a database; returns its address."""
        command = ["createdb", "-h", "127.0.0.1", "-p", f"{self.port}", "-U", USER, database]
        environment = os.environ | {"PGPASSWORD": PASSWORD}
        subprocess.run(
            [self.programs / command[0], *command[1:]], env=environment, check=True, timeout=60
        )
        return self.url(database)

    def control(self, action: str) -> None:
        """Starts, stops or restarts it, and waits until it has."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        command: list[str | Path] = [
            self.programs / "pg_ctl",
            action,
            "-D",
            self.folder / "data",
            "-w",
            "-t",
            "120",
        ]
        more: list[str | Path] = (
            [] if action == "stop" else ["-o", options, "-l", self.folder / "log"]
        )
        how = [] if action == "start" else ["-m", "fast"]
        _run([*command, *more, *how])


def programs() -> Path | None:
    """Returns the folder of PostgreSQL's programs; None if there are none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def running(found: Path) -> Iterator[Server]:
    """Runs a server.

    Args:
        found: folder of its programs.
    """
    # Not pytest's folder: only its owner may enter it, and that is not who the server runs as.
    with tempfile.TemporaryDirectory(prefix="convserve-postgresql-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if user := _user():
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        server = Server(free_port(), found, folder)
        options = ["-U", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        _run([found / "initdb", "-D", folder / "data", *options, f"--pwfile={folder / 'password'}"])
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop")


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(
        command,
        user=_user(),
        cwd="/",
        stdout=subprocess.DEVNULL,
        check=False,
        timeout=200,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def _user() -> str | None:
    """Returns whom it runs as, since it refuses to run as root; None for who we are."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"

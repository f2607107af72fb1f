"""The container of a manifest without a cluster: its command, variables, files, user and limits.

It has a network and mounts of its own (Linux, as root): its ports are those of the manifest,
everything is read-only, there is no temporary folder, and it has no capability. Files that a
manifest mounts are where they are on this machine, and variables and flags name them there.
"""

import json
import os
import queue
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kubernetes.manifests import ROOT, Object
from tests.program import Program

WAIT_S = 120.0

_NAMESPACES = ("unshare", "--mount", "--net")
#: The first argument is a folder that the user may not enter, the second one below it with the
#: interpreter, which is then the only one there; or both are empty.
_PREPARE = """
ip link set lo up && mount --make-rprivate / || exit
if [ -n "$1" ]; then
  mount --bind "$2" /mnt && mount -t tmpfs -o mode=755 none "$1" && mkdir -p "$2" || exit
  mount --move /mnt "$2" || exit
fi
shift 2
mount -o remount,bind,ro / && exec setpriv "$@"
"""


def hidden_interpreter() -> tuple[str, str]:
    """Returns what _PREPARE opens, so that another user may run our Python."""
    home = Path(sys.base_prefix).resolve()
    closed = [folder for folder in home.parents if not folder.stat().st_mode & stat.S_IXOTH]
    return (str(closed[-1]), str(home)) if closed else ("", "")


def lacking() -> str:
    """Returns why no pod can be started here; empty if one can."""
    if os.getuid():
        return "needs root"
    try:
        done = subprocess.run(
            [*_NAMESPACES, "sh", "-c", "ip link set lo up && setpriv --no-new-privs true"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return "unshare, of util-linux, is not installed"
    return done.stderr.strip() if done.returncode else ""


def image_variables() -> dict[str, str]:
    """Returns the variables that the image of the server has."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    stage = text.partition(" AS server\n")[2].partition("\nFROM ")[0]
    lines = re.findall(r"^ENV (.+)$", stage, re.MULTILINE)
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


@dataclass
class Pod:
    """A running container.

    Attributes:
        container: of the manifest.
        process: that it runs.
        log: its lines.
    """

    container: Object
    process: Program[str]
    log: list[dict[str, Any]] = field(default_factory=list)
    _lines: "queue.Queue[dict[str, Any] | None]" = field(default_factory=queue.Queue)

    def read(self) -> None:
        """Reads the log to its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(json.loads(line))
            self._lines.put(self.log[-1])
        self._lines.put(None)

    def wait_for(self, text: str) -> None:
        """Waits for a line of the log with a text."""
        while (line := self._lines.get(timeout=WAIT_S)) is not None:
            if text in line["message"]:
                return
        raise AssertionError(f"ended without {text!r}: {self.log}")

    def inside(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs our Python on the pod's network."""
        command = ["nsenter", "--net", "--target", str(self.process.pid), sys.executable]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False,
            cwd=ROOT, env=clean(os.environ),
        )  # fmt: skip

    def probe(self, name: str) -> str:
        """Does a probe as a kubelet does; returns "ok", or why it fails."""
        ports = {port["name"]: port["containerPort"] for port in self.container.get("ports", ())}
        arguments = ["127.0.0.1", json.dumps(self.container[name]), json.dumps(ports)]
        done = self.inside("-m", "tests.kubernetes.probe", *arguments)
        assert not done.stderr, done.stderr
        return done.stdout.strip()


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns variables without settings of ours."""
    return {name: value for name, value in environ.items() if not name.startswith("CONVSERVE_")}


def _as_user(user: Sequence[int]) -> list[str]:
    """Returns the flags of setpriv for a user who has no rights beyond."""
    own = [f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups"]
    return [*own, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]


@contextmanager
def started(
    container: Object, user: Sequence[int], mounted: Mapping[str, Path], fields: Mapping[str, str]
) -> Iterator[Pod]:
    """Runs the container of the server.

    Args:
        container: of a manifest.
        user: that it runs as, and its group.
        mounted: where on this machine is what the manifest mounts, by path in the container.
        fields: values of fields of the pod, by path.
    """

    def here(text: str) -> str:
        for path, folder in mounted.items():
            text = re.sub(rf"{re.escape(path)}(?=/|$)", str(folder), text)
        return text

    variables = clean(os.environ) | image_variables()
    variables = {name: here(value) for name, value in variables.items()}
    for one in container.get("env", ()):
        value = one.get("value")
        if value is None:
            value = fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        value = re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], value)
        variables[one["name"]] = here(value)
    variables |= {"TMPDIR": "/no/such/folder", "HOME": "/no/such/folder", "PYTHONUNBUFFERED": "1"}
    arguments = [here(one) for one in container.get("args", ())]
    program = [sys.executable, "-m", "convserve_server", *arguments]
    command = [*_NAMESPACES, "sh", "-c", _PREPARE, "sh", *hidden_interpreter()]
    command += [*_as_user(user), *program]
    with Program[str](
        command, stdout=subprocess.PIPE, text=True, env=variables, cwd="/"
    ) as process:
        pod = Pod(container, process)
        reader = threading.Thread(target=pod.read)
        reader.start()
        try:
            yield pod
        finally:
            process.kill()
            reader.join(WAIT_S)

"""Servers as processes: started, waited for, their processor time read, stopped with all children.

Source: proc_pid_stat(5), https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_START_S = 60.0
_STOP_S = 10.0
_TERMINATE_S = 60.0
#: Last lines of a server's output kept.
_KEPT_LINES = 200
#: Of these in a report.
_SHOWN_LINES = 40
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """A server did not start, or lost a process; str() says which."""


class ServerProcess:
    """A server on a free port of 127.0.0.1, from entering the context to leaving it.

    Args:
        name: for the table.
        command: starts it; one line of its output says its port.
        environ: what it is given beside our own environment.
        folder: to start it in; None: ours.
        port_in: returns the port that a line of its output says, None if it says none; by default
            that of a JSON object with the key port.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        *,
        port_in: Callable[[str], int | None] | None = None,
    ) -> None:
        self.name = name
        self._port_in = port_in or _port_in
        self._command = command
        self._environ = environ or {}
        self._folder = folder
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._port: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str]
        self._reader: threading.Thread
        self._started_with: frozenset[int] = frozenset()
        self.address = ""

    def __enter__(self) -> Self:
        """Start and wait for the port.

        Raises:
            ServerFailed: if it ended, or has no port in time.
        """
        # Our own settings must not come from the user's environment: the table states them.
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CONVSERVE_")}
        environ.update(self._environ)
        # A group of its own: Ctrl-C is for us, and one signal reaches whatever is left of it. Not a
        # session: Linux gives those even parts of the CPUs, however many threads wait in them, and
        # beside a busy one another has had a hundredth of a CPU for a minute.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=self._folder,
            process_group=0,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {self.name}")
        self._reader.start()
        try:
            self.address = f"127.0.0.1:{self._wait_for_port()}"
            self._started_with = frozenset(process_tree(self.root()))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def root(self) -> int:
        """Id of the process above all others of the server."""
        return self._process.pid

    def cpu_s(self) -> float:
        """User and system time of the server and all its children so far, in seconds.

        Raises:
            ServerFailed: if a process that was there at the start is gone.
        """
        tree = process_tree(self.root())
        if gone := self._started_with - tree.keys():
            raise ServerFailed(f"{self.name} lost processes {sorted(gone)}")
        return sum(tree.values())

    def terminate(self) -> int:
        """Send SIGTERM to the process above all others, and return its exit status when it ends.

        Raises:
            subprocess.TimeoutExpired: it goes on for a minute.
        """
        self._process.terminate()
        return self._process.wait(_TERMINATE_S)

    def output(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(f"    {line}" for line in [*self._lines][-_SHOWN_LINES:])

    def messages(self) -> list[str]:
        """What it logged as JSON, of the last lines."""
        entries = [_entry_in(line) for line in [*self._lines]]
        return [str(entry["message"]) for entry in entries if "message" in entry]

    def _wait_for_port(self) -> int:
        try:
            port = self._port.get(timeout=_START_S)
        except queue.Empty:
            raise ServerFailed(f"{self.name} named no port within {_START_S:g} s") from None
        if port is None:
            raise ServerFailed(f"{self.name} ended with status {self._process.wait()}")
        return port

    def _read(self) -> None:
        """Reads the output at once, for the port and so that the pipe never fills."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip())
            if (port := self._port_in(line)) is not None:
                self._port.put(port)
        self._port.put(None)

    def _stop(self) -> None:
        """Ask, then kill. The output ends when no process holds it any more."""
        try:
            self._process.terminate()
            self._process.wait(_STOP_S)
            self._reader.join(_STOP_S)
        except subprocess.TimeoutExpired:
            self._lines.append(f"(killed: did not stop within {_STOP_S:g} s)")
        finally:
            if self._process.poll() is None or self._reader.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()


def _entry_in(line: str) -> dict[str, object]:
    """The JSON object on a line; empty if there is none."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _port_in(line: str) -> int | None:
    port = _entry_in(line).get("port")
    return port if isinstance(port, int) else None


def process_tree(root: int) -> dict[int, float]:
    """A process and all below it: process id, user and system time in seconds.

    The time of children that ended and were waited for is in their parent's.
    """
    return _tree(root, slice(11, 15))


def own_seconds(root: int) -> dict[int, float]:
    """As process_tree, without the time of children."""
    return _tree(root, slice(11, 13))


def _tree(root: int, times: slice) -> dict[int, float]:
    """Returns the sum of some fields of a process and of all below it."""
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            stat = (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # ended while we looked
            continue
        # The second field is a name in brackets and may hold anything.
        fields = stat.rpartition(")")[2].split()
        pid, parent = int(folder.name), int(fields[1])
        if fields[0] == "Z":  # ended, not yet waited for
            continue
        children.setdefault(parent, []).append(pid)
        seconds[pid] = sum(map(int, fields[times])) / _TICKS_PER_S
    tree: dict[int, float] = {}
    below = [root]
    while below:
        pid = below.pop()
        if pid in seconds:
            tree[pid] = seconds[pid]
            below += children.get(pid, ())
    return tree

"""Load by nghttp2's h2load, which takes almost no processor of its own.

It knows nothing of gRPC and takes every answer with HTTP status 200 for a success; errors show in
the number of bytes that came. Over HTTP/1.1 each caller has a connection, which is kept.
Source: https://nghttp2.org/documentation/h2load.1.html.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness.answers import GRPC
from benchmarks.harness.load import Load, LoadError, Task

_FRAME_BYTES = 5  # compressed or not, and the length, before each gRPC message
_REQUESTS = re.compile(
    r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.M
)
_DATA = re.compile(r"^traffic: .* headers .*\((\d+)\) data", re.M)
#: Beyond the time it was asked to take.
_LATE_S = 30.0


class H2loadDriver:
    """See Driver. Calls in flight at the end are aborted and not counted."""

    def __init__(self) -> None:
        version = subprocess.run(
            ["h2load", "--version"], capture_output=True, text=True, check=True
        )
        self.name = version.stdout.strip()

    @staticmethod
    def is_installed() -> bool:
        """Whether there is an h2load to run."""
        return shutil.which("h2load") is not None

    def run(self, task: Task) -> Load:
        """See Driver.run."""
        with tempfile.TemporaryDirectory(prefix="convserve-h2load-") as folder:
            body, log = Path(folder, "body"), Path(folder, "log")
            body.write_bytes(_framed(task))
            command = [
                "h2load",
                f"--duration={round(task.seconds * 1000)}ms",
                *_connections(task),
                f"--data={body}",
                f"--log-file={log}",
                f"--header=content-type: {task.content_type}",
                *(f"--header={name}: {value}" for name, value in task.headers),
                f"{'https' if task.tls else 'http'}://{task.address}{task.path}",
            ]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=task.seconds + _LATE_S
                )
            except subprocess.TimeoutExpired as error:
                raise LoadError(f"h2load did not end within {error.timeout:g} s") from error
            if done.returncode:
                raise LoadError(f"h2load ended with {done.returncode}: {done.stderr.strip()}")
            _check(done.stdout, task)
            # Start in µs, HTTP status, duration in µs; a row for each answer.
            rows = np.loadtxt(log, np.int64, delimiter="\t", usecols=(0, 1, 2), ndmin=2)
        return Load(task.seconds, rows[:, 2] / 1e3)


def _framed(task: Task) -> bytes:
    if not _is_grpc(task):
        return task.request
    return b"\0" + len(task.request).to_bytes(4, "big") + task.request


def _connections(task: Task) -> list[str]:
    if not _is_grpc(task):
        return ["--h1", f"--clients={task.callers}"]
    streams = f"--max-concurrent-streams={task.callers // task.connections}"
    return [f"--clients={task.connections}", streams, "--header=te: trailers"]


def _is_grpc(task: Task) -> bool:
    return task.content_type == GRPC


def _check(report: str, task: Task) -> None:
    """Whether every call was answered, and with enough bytes.

    Raises:
        LoadError: saying what was wrong.
    """
    requests, data = _REQUESTS.search(report), _DATA.search(report)
    if requests is None or data is None:
        raise LoadError(f"h2load's report is not as expected:\n{report}")
    done, succeeded, *bad = map(int, requests.groups())
    if not done:
        raise LoadError(f"no call was answered within {task.seconds:g} s")
    if done != succeeded or any(bad):
        raise LoadError(requests[0])
    least = done * (task.least_reply_bytes + (_FRAME_BYTES if _is_grpc(task) else 0))
    if int(data[1]) < least:
        raise LoadError(
            f"{done} answers have {data[1]} bytes, right ones at least {least}: some are errors"
        )

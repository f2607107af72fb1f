"""Load by nghttp2's h2load, which takes almost no processor of its own.

It knows nothing of gRPC and takes every answer with HTTP status 200 for a success; errors show in
the number of bytes that came. Over HTTP/1.1 each caller has a connection, which is kept.
Source: https://nghttp2.org/documentation/h2load.1.html.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import GRPC
from benchmarks.harness.load import Load, LoadError, Task

_FRAME_BYTES = 5  # compressed or not, and the length, before each gRPC message
_REQUESTS = re.compile(
    r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.M
)
_DATA = re.compile(r"^traffic: .* headers .*\((\d+)\) data", re.M)
#: Connections that one process makes, all at once. Some servers, as mosec, have a queue of 128 for
#: those that they have not accepted, and h2load waits for ever for one that is lost there.
_MOST_AT_ONCE = 128
_LOOK_AGAIN_S = 0.002
#: States of a connection.
_ESTABLISHED, _LISTENS = "01", "0A"
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
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="convserve-h2load-"))
            body = Path(folder, "body")
            body.write_bytes(_framed(task))
            begun: list[tuple[subprocess.Popen[str], Path]] = []
            for connections in _connections(task):
                if begun:
                    _wait_until_accepted(task, len(begun) * _MOST_AT_ONCE)
                log = Path(folder, f"log-{len(begun)}")
                begun.append((stack.enter_context(_started(task, connections, body, log)), log))
            latencies = [_latencies_ms(process, log, task) for process, log in begun]
        return Load(task.seconds, np.concatenate(latencies))


@contextmanager
def _started(
    task: Task, connections: Sequence[str], body: Path, log: Path
) -> Iterator[subprocess.Popen[str]]:
    """h2load, which is not left running."""
    command = [
        "h2load",
        f"--duration={round(task.seconds * 1000)}ms",
        *connections,
        f"--data={body}",
        f"--log-file={log}",
        f"--header=content-type: {task.content_type}",
        *(f"--header={name}: {value}" for name, value in task.headers),
        f"{'https' if task.tls else 'http'}://{task.address}{task.path}",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_until_accepted(task: Task, connections: int) -> None:
    """Waits until a server has accepted so many; at most as long as the load takes.

    Source: proc_net_tcp, https://docs.kernel.org/networking/proc_net_tcp.html; the queue that a
    socket receives is, of one that listens, what is not accepted yet.
    """
    port = f":{int(task.address.rpartition(':')[2]):04X}"
    end = time.monotonic() + task.seconds
    while time.monotonic() < end:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        made = sum(row[2].endswith(port) and row[3] == _ESTABLISHED for row in rows)
        queues = [row[4] for row in rows if row[1].endswith(port) and row[3] == _LISTENS]
        if made >= connections and not any(int(one.partition(":")[2], 16) for one in queues):
            return
        time.sleep(_LOOK_AGAIN_S)


def _latencies_ms(process: subprocess.Popen[str], log: Path, task: Task) -> NDArray[np.float64]:
    """Waits for its end; one latency for each answer.

    Raises:
        LoadError: see H2loadDriver.run.
    """
    try:
        report, fault = process.communicate(timeout=task.seconds + _LATE_S)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"h2load did not end within {error.timeout:g} s") from error
    if process.returncode:
        raise LoadError(f"h2load ended with {process.returncode}: {fault.strip()}")
    _check(report, task)
    # Start in µs, HTTP status, duration in µs; a row for each answer.
    rows = np.loadtxt(log, np.int64, delimiter="\t", usecols=(0, 1, 2), ndmin=2)
    latencies: NDArray[np.float64] = rows[:, 2] / 1e3
    return latencies


def _framed(task: Task) -> bytes:
    if not _is_grpc(task):
        return task.request
    return b"\0" + len(task.request).to_bytes(4, "big") + task.request


def _connections(task: Task) -> list[list[str]]:
    """The options of each process that say what connections it makes."""
    if not _is_grpc(task):
        begun = range(0, task.callers, _MOST_AT_ONCE)
        shares = [min(_MOST_AT_ONCE, task.callers - first) for first in begun]
        return [["--h1", f"--clients={share}"] for share in shares]
    streams = f"--max-concurrent-streams={task.callers // task.connections}"
    return [[f"--clients={task.connections}", streams, "--header=te: trailers"]]


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

"""Measures docker-compose.yml: images, builds, starts, and several servers behind one name.

    python -m benchmarks.containers.deploy

Needs a container engine of this machine. Builds the images convserve-server, convserve-client and
convserve-trainer anew from copies of this checkout, and trains the demo's digit net once; takes
about ten minutes and leaves the images.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.containers.engine import Engine, is_serving, until
from benchmarks.containers.stack import ROOT, OutageClient, Stack
from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.meter import rotated
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid

SERVICES = ("server", "client", "trainer")
_BASE = "python:3.11-slim-bookworm"
#: Of one server alone and three together, with this many CPUs each; 0: all.
_SHARES = ("0", "0.25")
_MIB = 2**20


@dataclass(frozen=True)
class Image:
    """An image's size, and what of it is the base image, Python packages and our code."""

    name: str
    mib: float
    base_mib: float
    packages_mib: float
    code_mib: float


@dataclass(frozen=True)
class Span:
    """How long something took, s, each time."""

    what: str
    seconds: list[float]


@dataclass(frozen=True)
class Scaling:
    """One client's calls to so many servers, each with so many CPUs."""

    cpus: str
    servers: int
    calls_per_s: list[float]


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.containers.deploy", __doc__)
    result.add_argument(
        "--calls", type=whole(50), default=300, metavar="N",
        help="of 64 digits in each measurement of several servers, from 50 [default: 300]",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="start and number of servers")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Build, start, measure, take the containers away, print.

    Raises:
        BenchmarkError: if there is no engine, or something failed.
    """
    engine = Engine()
    if not engine.runs:
        raise BenchmarkError("no container engine answers; see DOCKER_HOST")
    on = machine(("convserve",))
    version = engine.docker("version", "--format", "{{.Server.Version}}")
    project = f"convserve-bench-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="convserve-deploy-") as folder:
        stack = Stack(engine, project, _copied(Path(folder)))
        spans = list(_builds(stack, Path(folder)))
    images = [_image(engine, f"convserve-{service}") for service in SERVICES]
    stack = Stack(engine, project)
    try:
        spans += _first_run(stack)
        spans += _starts(stack, arguments.rounds)
        scaling = _scaling(stack, arguments.rounds, arguments.calls)
    finally:
        stack.try_compose("down", "-v", "--timeout", "1")
    details = (f"Docker {version}", f"rounds: {arguments.rounds}", f"base image {_BASE}")
    tables = _images_table(images), _spans_table(spans), _scaling_table(scaling)
    print(heading(on, "everything", details), *tables, sep="\n\n")
    about = {"engine": version, "rounds": arguments.rounds, "calls": arguments.calls}
    write_json(arguments.json, on, about, images=images, spans=spans, scaling=scaling)


def _copied(folder: Path) -> Path:
    """The files of this checkout that are or could be committed, elsewhere."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return folder


def _builds(stack: Stack, folder: Path) -> Iterator[Span]:
    """Of all images: with no package there yet, with nothing changed, and with a line of code."""
    for lock in (folder / "locks").glob("*.txt"):
        with lock.open("a") as file:
            file.write(f"# {uuid.uuid4()}\n")  # no layer made from it can be there
    yield _build(stack, "first build of all images")
    yield _build(stack, "build with nothing changed")
    with (folder / "server" / "convserve_server" / "__init__.py").open("a") as file:
        file.write(f"# {uuid.uuid4()}\n")
    yield _build(stack, "build after a changed line of code")


def _build(stack: Stack, what: str) -> Span:
    tell(what)
    started = time.monotonic()
    stack.compose("build")
    return Span(what, [time.monotonic() - started])


def _image(engine: Engine, name: str) -> Image:
    base = int(engine.inspect(_BASE)["Size"])
    # Of the layers in the order of their making, our packages and our code are the last two.
    text = engine.docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", name)
    code, packages = [int(size) for size in text.split() if int(size) > _MIB / 4][:2]
    size = int(engine.inspect(name)["Size"])
    return Image(name, size / _MIB, base / _MIB, packages / _MIB, code / _MIB)


def _first_run(stack: Stack) -> Iterator[Span]:
    """From nothing to the client's answer, on volumes that are empty."""
    tell("first run")
    started = time.monotonic()
    stack.compose("up", "-d")
    (client,) = stack.containers("client")
    if (status := stack.engine.docker("wait", client)) != "0":
        raise BenchmarkError(f"the client ended with {status}:\n{stack.engine.log(client)}")
    yield Span("up, until trained, published, served and asked", [time.monotonic() - started])


def _starts(stack: Stack, rounds: int) -> Iterator[Span]:
    """From two beginnings to the line with which a server says that it serves."""
    by_command, by_container = [], []
    for round_ in range(rounds):
        tell(f"round {round_ + 1}: start")
        stack.compose("rm", "-sf", "server")
        began = datetime.now(UTC)
        stack.compose("up", "-d", "--no-deps", "server")
        (server,) = stack.containers("server")
        until(lambda: _serves(stack), "the server serves")
        started = _time(stack.engine.inspect(server)["State"]["StartedAt"])
        ready = next(e for e in stack.entries(server) if "listening on" in e["message"])
        by_command.append((_time(ready["time"]) - began).total_seconds())
        by_container.append((_time(ready["time"]) - started).total_seconds())
    yield Span("up of the server with a published model, until it serves", by_command)
    yield Span("of that, since its container was started", by_container)


def _serves(stack: Stack) -> bool:
    return is_serving(stack.compose("port", "server", "50051").strip())


def _time(text: str) -> datetime:
    # Docker gives nanoseconds, which datetime does not take.
    whole_s, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole_s}.{fraction[:6]:0<6}+00:00")


def _scaling(stack: Stack, rounds: int, calls: int) -> list[Scaling]:
    """One server and three in turn."""
    cases = [(cpus, servers) for cpus in _SHARES for servers in (1, 3)]
    measured: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for round_ in range(rounds):
        for cpus, servers in rotated(cases, round_):
            stack.compose("rm", "-sf", "server")
            stack.compose(
                "up", "-d", "--no-deps", "--scale", f"server={servers}", "server",
                CONVSERVE_SERVER_CPUS=cpus,
            )  # fmt: skip
            for server in stack.containers("server"):
                until(lambda server=server: stack.serves(server, "mnist/1"), "it serves")  # type: ignore[misc]
            with _calling(stack, calls) as client:
                outcome = client.stop()
            if outcome["failed"]:
                raise BenchmarkError(f"calls failed: {outcome['failed']}")
            measured[cpus, servers].append(outcome["calls_per_s"])
            tell(
                f"round {round_ + 1}: {servers} servers, cpus {cpus}: {outcome['calls_per_s']:.0f}"
            )
    return [Scaling(cpus, servers, rates) for (cpus, servers), rates in measured.items()]


@contextmanager
def _calling(stack: Stack, calls: int) -> Iterator[OutageClient]:
    client = OutageClient(stack, "--threads", "12", "--images", "64", "--report-after", str(calls))
    try:
        client.wait_until_answered()
        yield client
    finally:
        client.remove()


def _images_table(images: Sequence[Image]) -> str:
    header = ("image", "MiB", "of which base image", "Python packages", "Convserve")
    lines = [
        (
            image.name, f"{image.mib:.0f}", f"{image.base_mib:.0f}", f"{image.packages_mib:.0f}",
            f"{image.code_mib:.1f}",
        )
        for image in images
    ]  # fmt: skip
    return grid(header, lines, {"image"})


def _spans_table(spans: Sequence[Span]) -> str:
    return grid(
        ("what", "s, median (min..max)"), [(one.what, _spread(one.seconds)) for one in spans],
        {"what"},
    )  # fmt: skip


def _scaling_table(scaling: Sequence[Scaling]) -> str:
    alone = {one.cpus: statistics.median(one.calls_per_s) for one in scaling if one.servers == 1}
    lines = [
        (
            "all" if one.cpus == "0" else one.cpus,
            str(one.servers),
            _spread(one.calls_per_s),
            f"{statistics.median(one.calls_per_s) / alone[one.cpus]:.2f}",
        )
        for one in scaling
    ]
    header = (
        "CPUs of each server", "servers", "calls/s of 64 digits, median (min..max)", "to one server"
    )  # fmt: skip
    return grid(header, lines, ())


def _spread(values: Sequence[float]) -> str:
    median = statistics.median(values)
    if len(values) == 1:
        return f"{median:.1f}"
    return f"{median:.1f} ({min(values):.1f}..{max(values):.1f})"


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(execute(_parser(), run))

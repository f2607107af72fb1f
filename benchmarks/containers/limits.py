"""Measures servers in containers that may use little: what they answer, and the memory they use.

    python -m benchmarks.containers.limits --models models --limits 1,512m --limits 2,300m

Needs a container engine of this machine and the image convserve-server (docker compose build). The
baseline is the same container without limits. After the load of benchmarks.serving come calls that
take much memory at once; a server may refuse some of those, but must answer the rest, and the
questions that are asked afterwards.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.containers.engine import Engine, is_serving, until
from benchmarks.containers.memory_bursts import MemoryBurst, memory_bursts
from benchmarks.containers.server_container import ServerContainer
from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    add_server_options,
    execute,
    new_parser,
    tell,
)
from benchmarks.harness.memory import MemoryWatch, private_bytes
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, reported, running
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import FRONTS
from benchmarks.harness.table import CELLS, Measurement, grid, markdown, rows

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "protobuf", "pygrpc-native")
_MIB = 2**20


@dataclass(frozen=True)
class Sizes:
    """What a server chose, and the most memory that it used.

    Attributes:
        server: its name.
        workers: processes that answer.
        engine_threads: of each worker.
        decode_threads: of each worker.
        rest_mib: memory that belongs to no file, with all models loaded, before any load.
        most_mib: the most of it under all loads.
        most_in: the load under which it was.
        deaths: workers that ended.
        statuses: of all calls of the bursts.
    """

    server: str
    workers: int
    engine_threads: int
    decode_threads: int
    rest_mib: float
    most_mib: float
    most_in: str
    deaths: int
    statuses: dict[str, int]


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.containers.limits", __doc__)
    add_server_options(result)
    result.add_argument(
        "--limits", type=_limits, action="append", metavar="CPUS,MEMORY",
        help="what a server may use, as options of docker run; may be repeated [default: 1,512m]",
    )  # fmt: skip
    result.add_argument(
        "--digits", default="mnist", metavar="NAME", help="model of digits [default: mnist]"
    )
    result.add_argument(
        "--photos", metavar="NAME", help="model of photographs [default: the first by name]"
    )
    add_run_options(result, rounds=3, measured="server and cell", least=0)
    return result


def _limits(text: str) -> tuple[str, str]:
    cpus, _, memory = text.partition(",")
    if not memory:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1,512m")
    return cpus, memory


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: if there is no engine, image or bundle, or a call got a wrong answer.
    """
    engine = Engine()
    if not engine.runs:
        raise BenchmarkError("no container engine answers; see DOCKER_HOST")
    digits = Bundle.newest(arguments.models, arguments.digits)
    photos = Bundle.newest_of_photos(arguments.models, arguments.photos)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    questions = Questions.of_pixels(digits, max(cell.images for cell in CELLS))
    on = machine(_PACKAGES)
    servers = _servers(engine, arguments)
    subjects = [Subject(server, questions) for server in servers]
    measured: list[Measurement] = []
    if arguments.rounds:
        with running(subjects):
            measured += measurements(meter, subjects, CELLS, arguments.rounds)
    table = rows(measured, servers[0].name)
    bursts = memory_bursts(digits.model, photos.model)
    sizes = [
        _size(subject, meter, bursts)
        for subject in (Subject(server, questions) for server in _servers(engine, arguments))
    ]
    about = meter.about(digits, arguments.rounds) | {
        "memory_bursts": [burst.name for burst in bursts]
    }
    tables = [markdown(table)] if table else []
    print(heading_of_load(on, about), *tables, _sizes_table(sizes), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table, sizes=sizes)


def _servers(engine: Engine, arguments: argparse.Namespace) -> list[ServerContainer]:
    cases: list[tuple[str, list[str]]] = [("no limits", [])]
    for cpus, memory in arguments.limits or [("1", "512m")]:
        options = ["--cpus", cpus, "--memory", memory, "--memory-swap", memory]
        cases.append((f"{cpus} CPU, {memory}", options))
    flags: list[str] = arguments.flags.split()
    return [
        ServerContainer(
            engine, f"{front}, {name}", Path(arguments.models), options, ["--front", front, *flags]
        )
        for name, options in cases
        for front in FRONTS
    ]


def _size(subject: Subject, meter: Meter, bursts: Sequence[MemoryBurst]) -> Sizes:
    """One server under every burst, its answers checked after each."""
    server = subject.server
    assert isinstance(server, ServerContainer)
    statuses: Counter[str] = Counter()
    with running([subject]):
        root = server.root()
        rest = private_bytes(root)
        most = {"at rest": rest}
        for burst in bursts:
            watch = MemoryWatch(root)
            with watch.watching():
                statuses += burst.send(server.address, meter.seconds)
            most[burst.name] = watch.most
            # A worker that was killed is back in a moment.
            until(lambda: is_serving(server.address), f"{server.name} serves after {burst.name}")
            with reported(server, f", after {burst.name}"):
                subject.questions.check(server.address)
            tell(f"{server.name}, {burst.name}: {watch.most / _MIB:.0f} MiB, {dict(statuses)}")
        settings: dict[str, Any] = server.settings()
        deaths = server.deaths()
    for death in deaths:
        tell(f"{server.name}: {death}")
    return Sizes(
        server=server.name,
        workers=settings["workers"],
        engine_threads=settings["engine_threads"],
        decode_threads=settings["decode_threads"],
        rest_mib=rest / _MIB,
        most_mib=max(most.values()) / _MIB,
        most_in=max(most, key=lambda name: most[name]),
        deaths=len(deaths),
        statuses=dict(statuses),
    )


def _sizes_table(sizes: Sequence[Sizes]) -> str:
    header = (
        "server", "workers", "engine threads", "decode threads", "MiB at rest", "MiB, most",
        "under", "workers lost", "calls answered", "refused",
    )  # fmt: skip
    return grid(header, [list(_cells(one)) for one in sizes], {"server", "under", "refused"})


def _cells(one: Sizes) -> Iterator[str]:
    yield one.server
    yield from map(str, (one.workers, one.engine_threads, one.decode_threads))
    yield f"{one.rest_mib:.0f}"
    yield f"{one.most_mib:.0f}"
    yield one.most_in
    yield str(one.deaths)
    yield f"{one.statuses.get('OK', 0):,}"
    others = {name: count for name, count in one.statuses.items() if name != "OK"}
    yield ", ".join(f"{count:,} {name}" for name, count in sorted(others.items())) or "none"


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

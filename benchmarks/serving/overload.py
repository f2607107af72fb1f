"""Measures what a server still answers in time when more calls come than it can answer.

    python -m benchmarks.serving.overload --models models
    python -m benchmarks.serving.overload --against main --workloads photographs --plot overload.svg
    python -m benchmarks.serving.overload --show first.json second.json --plot overload.svg

Open loop: calls are due at equal distances, at a multiple of the most that the server answers, and
each has a deadline. The server has one CPU and one worker, the generator another CPU. The most that
the server answers is measured in the same arrangement, by callers that wait for their answers,
twice before the points and once after them; the largest is 100 %. Where other work shares the
machine, the good answers for each second of the server's processor time say more.

Photographs are JPEG files, one a call; once from the generator and once from the library's asyncio
client, which tries refused calls again as it does for its users. Of the images that the engine
computed for calls that had no answer in time the share is counted inside the worker. A point at
which the generator was late with more than 1 % of the calls is not reached: the load was less, and
part of the latency is the generator's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness.batch_count import BatchCount
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_models_option,
    add_photos_option,
    execute,
    new_parser,
    tell,
)
from benchmarks.harness.memory import private_bytes
from benchmarks.harness.meter import reported
from benchmarks.harness.pictures import pictures
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading, machine
from benchmarks.harness.revisions import ROOT, Source, checked_out
from benchmarks.harness.servers import FRONTS, server_of
from benchmarks.serving.overload_points import WORKLOADS, Point, Workload, markdown

LOADS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "pygrpc-native")
_FLAGS = "--workers 1"
#: Longest time for which calls are made before those that count, s.
_WARM_UP_S = 1.0
#: Beyond the time that a generator was asked to take, s.
_LATE_S = 60.0
_FILES = 64
_CONNECTIONS = 8
#: A variable, which revisions that do not know it do without.
_ENVIRON = {"CONVSERVE_MAX_STREAMS": "4096"}
#: No more than so many calls can be in flight: each connection may have 4,096.
_CALLERS = 4000 * _CONNECTIONS
#: Deadline where the most is measured: none that matters, s.
_LONG_S = 30.0


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(f"'{each.name}'" for each in WORKLOADS)
    result = new_parser("benchmarks.serving.overload", __doc__)
    add_models_option(result)
    add_photos_option(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME", help="of digits [default: mnist]"
    )
    result.add_argument("--photo-model", metavar="NAME", help="[default: the first of photographs]")
    result.add_argument(
        "--against", metavar="REV",
        help="measure this revision of ours too, as git names it, with its own client library",
    )  # fmt: skip
    result.add_argument(
        "--workloads", nargs="+", metavar="NAME", choices=[each.name for each in WORKLOADS],
        default=[each.name for each in WORKLOADS], help=f"some of {names} [default: all]",
    )  # fmt: skip
    result.add_argument(
        "--fronts", nargs="+", choices=FRONTS, default=FRONTS, help="[default: both]"
    )
    result.add_argument(
        "--loads", nargs="+", type=_load, default=LOADS, metavar="X",
        help="multiples of the most that a server answers [default: 0.5 1 1.5 2 3 5]",
    )  # fmt: skip
    result.add_argument(
        "--photo-deadline-ms", type=_load, default=500.0, metavar="MS", help="[default: 500]"
    )
    result.add_argument(
        "--digit-deadline-ms", type=_load, default=100.0, metavar="MS", help="[default: 100]"
    )
    result.add_argument(
        "--seconds", type=_load, default=4.0, metavar="S",
        help="length of a measurement, after 1 s of the same load [default: 4]",
    )  # fmt: skip
    result.add_argument(
        "--flags", default="", metavar="FLAGS", help="more flags for convserve-serve"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    result.add_argument("--plot", type=Path, metavar="FILE", help="draw them, as .svg or .png")
    result.add_argument(
        "--show", nargs="+", type=Path, metavar="JSON",
        help="measure nothing: print, and draw, what earlier runs wrote by --json",
    )  # fmt: skip
    return result


def _load(text: str) -> float:
    if not 0 < (value := float(text)) <= 3600:
        raise argparse.ArgumentTypeError(f"{value:g} is not within 0 to 3600")
    return value


class Arrangement:
    """A server on its CPU, and the generators on theirs.

    Args:
        arguments: of the command.
        workload: what is sent.
        source: whose server, and client, these are.
        front: of the server.
        bundle: that is served.
        pictures: folder of the files that are sent; None: random pixels.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        workload: Workload,
        source: Source,
        front: str,
        bundle: Bundle,
        pictures: Path | None,
    ) -> None:
        self._arguments = arguments
        self._workload = workload
        self._source = source
        self._front = front
        self._bundle = bundle
        self._pictures = pictures
        photographs = workload.photographs
        deadline = arguments.photo_deadline_ms if photographs else arguments.digit_deadline_ms
        self._deadline_s = deadline / 1e3
        self._warm_up_s = min(_WARM_UP_S, arguments.seconds)
        first, second, *_ = sorted(os.sched_getaffinity(0))
        self._servers_cpu, self._generators_cpu = (
            ("taskset", "--cpu-list", str(cpu)) for cpu in (first, second)
        )
        self._server: ServerProcess
        self._count: BatchCount

    def points(self) -> Iterator[Point]:
        """The most that the server answers, every load, and the most again.

        Raises:
            BenchmarkError: if a process failed.
        """
        with ExitStack() as stack:
            self._count = stack.enter_context(BatchCount())
            environ = self._count.environ(self._source.environ["PYTHONPATH"]) | _ENVIRON
            flags = f"{_FLAGS} {self._arguments.flags}".strip()
            self._server = server_of(
                self._source, self._front, self._bundle.file, flags,
                before=self._servers_cpu, environ=environ,
            )  # fmt: skip
            with reported(self._server, ", starting"):
                stack.enter_context(self._server)
            # Other work on the machine can only make it less.
            most = [self._most(), self._most()]
            before = max(each["good_per_s"] for each in most)
            if not before:
                raise BenchmarkError(f"{self._name}: no call was answered\n{self._server.output()}")
            rates = [load * before for load in self._arguments.loads]
            measured = [self._drive(rate) for rate in rates]
            most.append(self._most())
        capacity = max(before, most[-1]["good_per_s"])
        found = ", ".join(f"{each['good_per_s']:.0f}" for each in most)
        tell(f"{self._name}: at most {found} calls/s, the last after the points")
        a_cpu_second = _sum(most, "in_time") / _sum(most, "server_cpu_s")
        for rate, result in zip(rates, measured, strict=True):
            yield self._point(rate, capacity, a_cpu_second, result)

    @property
    def _name(self) -> str:
        return f"{self._workload.name}, {self._front}, {self._source.name}"

    def _most(self) -> dict[str, Any]:
        """Calls/s of callers that wait for their answers, the same for each way of sending."""
        workload = self._workload
        flags = [f"--deadline={_LONG_S}", f"--callers={workload.callers}"]
        return self._run("open_loop", Source.today(), flags)

    def _drive(self, rate: float) -> dict[str, Any]:
        before = self._memory_mib()
        flags = [f"--rate={rate}", f"--deadline={self._deadline_s}"]
        if self._workload.library:
            result = self._run("library_loop", self._source, flags)
        else:
            result = self._run("open_loop", Source.today(), [*flags, f"--callers={_CALLERS}"])
        tell(
            f"{self._name}: {rate:.0f} due/s, {result['good_per_s']:.0f} good,"
            f" {result['failures']}, CPU {result['cpu_share']:.0%}, {result['messages']}"
        )
        return result | {"memory_before_mib": before, "memory_mib": self._memory_mib()}

    def _memory_mib(self) -> float:
        return private_bytes(self._server.root()) / 2**20

    def _run(self, module: str, source: Source, flags: Sequence[str]) -> dict[str, Any]:
        arguments, images = self._arguments, self._workload.images
        command = [
            *self._generators_cpu, str(source.python), "-m", f"benchmarks.harness.{module}",
            f"--server={self._server.address}", f"--model={self._bundle.model}",
            f"--connections={_CONNECTIONS}", f"--count={self._count.path}",
            f"--root={self._server.root()}",
            f"--seconds={arguments.seconds}", f"--warm-up={self._warm_up_s}", *flags,
            *([f"--images={images}"] if images > 1 else []),
            *([f"--pictures={self._pictures}"] if self._pictures else []),
        ]  # fmt: skip
        environ = source.environ | {"no_grpc_proxy": "localhost,127.0.0.1", "PATH": "/usr/bin:/bin"}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False,
                timeout=arguments.seconds + _WARM_UP_S + _LATE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{self._name}: not done within {error.timeout:g} s") from error
        if done.returncode:
            raise BenchmarkError(
                f"{self._name}: {done.stdout}{done.stderr}\n{self._server.output()}"
            )
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def _point(
        self, rate: float, capacity: float, a_cpu_second: float, result: dict[str, Any]
    ) -> Point:
        failures = dict(result["failures"])
        counted = max(1, result["good"] + sum(failures.values()))
        shares = {name: number / counted for name, number in failures.items()}
        computed = result["computed"]
        return Point(
            workload=self._workload.name,
            server=f"{self._front}, {self._source.name}",
            deadline_ms=self._deadline_s * 1e3,
            capacity=capacity,
            load=rate / capacity,
            good=result["good_per_s"] / capacity,
            good_a_cpu_second=result["in_time"] / max(0.01, result["server_cpu_s"]) / a_cpu_second,
            refused=shares.pop("RESOURCE_EXHAUSTED", 0.0),
            expired=shares.pop("DEADLINE_EXCEEDED", 0.0),
            others=shares,
            too_late=max(0.0, 1 - result["in_time"] / computed) if computed else 0.0,
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            late=result["late"] / max(1, result["due"]),
            lost=result["lost"],
            tries=result["tries"],
            memory_before_mib=result["memory_before_mib"],
            memory_mib=result["memory_mib"],
            generator_cpu=result["cpu_share"],
        )


def _sum(results: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(result[name] for result in results))


def run(arguments: argparse.Namespace) -> None:
    """Measures, or reads what was measured; prints and draws.

    Raises:
        BenchmarkError: see Arrangement.points, Bundle.newest, pictures and checked_out.
    """
    if arguments.show:
        read = [json.loads(file.read_text()) for file in arguments.show]
        on, about = read[0]["machine"], read[0]["run"]
        points = [Point(**point) for each in read for point in each["points"]]
    else:
        on = machine(_PACKAGES)
        about = {"seconds": arguments.seconds, "flags": arguments.flags}
        points = _measure(arguments)
    seconds = f"{about['seconds']:g} s a point"
    cpus = "one CPU for the server and its one worker, the other for the generator"
    print(heading(on, "both", [cpus, seconds]), markdown(points), sep="\n\n")
    if arguments.json:
        content = {"machine": on, "run": about, "points": [asdict(point) for point in points]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    if arguments.plot:
        from benchmarks.serving.overload_plot import write

        write(arguments.plot, points)


def _measure(arguments: argparse.Namespace) -> list[Point]:
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchmarkError("there must be a CPU for the server and one for the generator")
    sources = [Source.today()]
    if arguments.against:
        sources.insert(0, checked_out(arguments.against))
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        for workload in WORKLOADS:
            if workload.name not in arguments.workloads:
                continue
            sent = None
            if workload.photographs:
                bundle = Bundle.newest_of_photos(arguments.models, arguments.photo_model)
                sent = Path(folder)
                for number, file in enumerate(pictures(arguments.photos, _FILES).files):
                    (sent / f"{number:03}.jpg").write_bytes(file)
            else:
                bundle = Bundle.newest(arguments.models, arguments.model)
            for front in arguments.fronts:
                for source in sources:
                    one = Arrangement(arguments, workload, source, front, bundle, sent)
                    points += one.points()
    return points


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

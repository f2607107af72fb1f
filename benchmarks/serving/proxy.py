"""Measures what Envoy costs before a server: calls/s and the processor time of Envoy for each call.

    python -m benchmarks.serving.proxy --models models --model mnist

The native front is asked directly, and by way of Envoy as deploy/envoy/envoy.yaml has it, with one
thread, without TLS and with it. Of the rows with Envoy the processor time is that of Envoy alone;
the server's own comes on top. All take turns; each round begins with another one. Needs h2load, and
Envoy: `make test-envoy` installs one. The table goes to standard output as Markdown, progress to
standard error.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    add_server_options,
    execute,
    new_parser,
)
from benchmarks.harness.envoy import Envoy, find_envoy, write_certificate
from benchmarks.harness.fleet import Fleet, Replica
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.name_server import NameServer
from benchmarks.harness.ports import free_port
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.table import Cell, markdown, rows

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "pygrpc-native")
CELLS = (Cell(1, 1), Cell(16, 1), Cell(64, 1), Cell(4, 64))


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.proxy", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--envoy", type=Path, metavar="FILE",
        help="Envoy's program [default: that of make test-envoy, or of PATH]",
    )  # fmt: skip
    result.add_argument(
        "--callers", type=int, choices=[cell.callers for cell in CELLS],
        help="measure this load alone [default: all]",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="way and cell")
    return result


@contextmanager
def subjects_of(
    program: Path, models: Path, flags: str, asked: Questions
) -> Iterator[list[Subject]]:
    """Yields what is measured, not started, the server itself first, which is the baseline.

    Args:
        program: Envoy.
        models: folder of bundles.
        flags: more flags for the server.
        asked: what is asked.
    """
    port = free_port()
    server = Replica(Fleet.host(0), port, models, ["--front", "native", *flags.split()])
    with (
        NameServer([server.host]) as names,
        tempfile.TemporaryDirectory(prefix="convserve-envoy-") as plain,
        tempfile.TemporaryDirectory(prefix="convserve-envoy-") as secret,
    ):
        write_certificate(Path(plain))
        authority = write_certificate(Path(secret))
        yield [
            Subject(server, asked, "direct"),
            Subject(Envoy(program, Path(plain), names.address, port), asked, "Envoy"),
            Subject(
                Envoy(program, Path(secret), names.address, port, tls=True),
                replace(asked, authority=authority),
                "Envoy, TLS",
                tls=True,
            ),
        ]


def run(arguments: argparse.Namespace) -> None:
    """Start the server and Envoy, measure, stop them, print.

    Raises:
        BenchmarkError: there is no Envoy; or see Meter.measure, Bundle.newest and choose_driver.
    """
    program = find_envoy(arguments.envoy)
    if program is None:
        raise BenchmarkError("there is no Envoy; make test-envoy installs it")
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    cells = [cell for cell in CELLS if arguments.callers in (None, cell.callers)]
    asked = Questions.of_pixels(bundle, max(cell.images for cell in CELLS))
    models = bundle.file.parents[2]
    with (
        subjects_of(program, models, arguments.flags, asked) as subjects,
        running(subjects),
    ):
        measured = list(measurements(meter, subjects, cells, arguments.rounds))
    table = rows(measured, subjects[0].name)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), markdown(table), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

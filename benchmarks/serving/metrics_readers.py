"""Measures what metrics cost a server under load: without a page, and with one that is read.

    python -m benchmarks.serving.metrics_readers --models models --model mnist
    python -m benchmarks.serving.metrics_readers --against v0.1.0

Every server counts; one of three also has the page, which somebody reads each second, and the first
two are alike: how far they are apart is what chance does. Against a revision, its server is there
twice as well, for what counting itself costs.
"""

import argparse
import contextlib
import sys
import threading
import urllib.request
from collections.abc import Iterator

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import add_run_options, add_server_options, execute, new_parser
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import server_of
from benchmarks.harness.table import Cell, markdown, rows

_PACKAGES = ("convserve", "onnxruntime", "prometheus-client", "pygrpc-native")
_CELLS = (Cell(1, 1), Cell(64, 1))
_FRONT = "native"
#: Between two readings of the page, s.
_EVERY_S = 1.0


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.metrics_readers", __doc__)
    add_server_options(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument("--against", metavar="REV", help="measure beside this revision of ours")
    add_run_options(result, rounds=5, measured="server and cell")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, read the page of one of them, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest, choose_driver and checked_out.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    port = free_port()
    servers = _servers(arguments, bundle, port)
    questions = Questions.of_pixels(bundle, 1)
    *alike, read = servers
    subjects = [Subject(server, questions) for server in alike]
    subjects.append(Subject(read, questions, f"{_FRONT}, today, its page read each second"))
    with running(subjects), _reader(port):
        measured = list(measurements(meter, subjects, _CELLS, arguments.rounds))
    table = rows(measured, servers[0].name)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), markdown(table), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table)


def _servers(arguments: argparse.Namespace, bundle: Bundle, port: int) -> list[ServerProcess]:
    """Those that are compared, not started; the last one has the page."""
    flags, today = arguments.flags, Source.today()
    sources = [] if arguments.against is None else [checked_out(arguments.against)]
    alike = [
        server_of(source, _FRONT, bundle.file, flags, again=again)
        for source in [*sources, today]
        for again in ("", ", again")
    ]
    page = f"{flags} --metrics-port {port}".strip()
    return [*alike, server_of(today, _FRONT, bundle.file, page)]


@contextlib.contextmanager
def _reader(port: int) -> Iterator[None]:
    """Reads the page again and again."""
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(_EVERY_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                page.read()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

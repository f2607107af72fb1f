"""Measures photographs a second through the server beside naive ones.

    python -m benchmarks.serving.photos --models models --photos DIR

One JPEG a call, in each round another one, the same for all servers. All servers are up all the
time and take turns. Answers are checked with a real client at first and after every measurement,
each server's against ONNX Runtime on pixels decoded as that server should. Then real clients ask
ours and keep what the replies say of where the time went. Tables go to standard output as Markdown,
progress to standard error.
"""

import argparse
import sys

from benchmarks.harness import naive_server
from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_photos_option,
    add_run_options,
    add_server_options,
    execute,
    new_parser,
)
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.pictures import Pictures, pictures
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import BASELINE, naive, ours
from benchmarks.harness.table import Cell, markdown, rows
from benchmarks.serving.call_time_breakdown import call_times
from benchmarks.serving.call_time_breakdown import markdown as times_markdown
from convserve_imaging import photos

CELLS = (Cell(1, 1), Cell(16, 1))

_PACKAGES = (
    "convserve",
    "cykooz.resizer",
    "grpcio",
    "onnxruntime",
    "pillow",
    "protobuf",
    "pygrpc-native",
    "simplejpeg",
)
#: Each is asked of every server in each check.
_MOST_PHOTOGRAPHS = 8


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.photos", __doc__)
    add_photos_option(result)
    add_server_options(result)
    result.add_argument(
        "--model", metavar="NAME",
        help="of which the newest version is served [default: the first of photographs]",
    )  # fmt: skip
    add_run_options(result, rounds=5, measured="server and cell")
    return result


def subjects(bundle: Bundle, given: Pictures, flags: str = "") -> list[Subject]:
    """What is compared, not started.

    The baseline decodes with Pillow; it comes again with all CPUs for each call, and with our
    decoder. Ours come with each front.

    Args:
        bundle: of photographs.
        given: what is asked.
        flags: more flags for ours.
    """
    naively = Questions.of_files(bundle, given.files, naive_server.decode)
    asked = Questions.of_files(bundle, given.files, photos.decode)
    wide = naive(bundle.file, f"{BASELINE}, all cores a call", ("--session-threads", "0"))
    same = naive(bundle.file, f"{BASELINE}, our decoder", ("--decoder", "convserve"))
    return [
        Subject(naive(bundle.file), naively),
        Subject(wide, naively),
        Subject(same, asked),
        *(Subject(server, asked) for server in ours(bundle.file, flags)),
    ]


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest_of_photos, pictures and choose_driver.
    """
    bundle = Bundle.newest_of_photos(arguments.models, arguments.model)
    given = pictures(arguments.photos, min(arguments.rounds, _MOST_PHOTOGRAPHS))
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    everyone = subjects(bundle, given, arguments.flags)
    with running(everyone):
        measured = list(measurements(meter, everyone, CELLS, arguments.rounds))
        times = call_times(meter, everyone[3:], CELLS, arguments.rounds)
    table = rows(measured, BASELINE)
    about = {**meter.about(bundle, arguments.rounds), "photographs": given.about}
    print(heading_of_load(on, about), markdown(table), times_markdown(times), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table, call_times=times)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Measures what callers notice of a reload: failed calls, slow ones, answers of the version before.

    python -m benchmarks.serving.reload --models models --model mnist

A copy of the model is published as the next version again and again, while callers ask without
pause over 16 connections. A window lasts from the moment of publishing until half a second after
the last answer of the version before. An answer steps back if its call began after an answer of a
newer version had come over any of the connections.
"""

import argparse
import contextlib
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_models_option,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.meter import Subject, reported, running
from benchmarks.harness.reloading import (
    AFTER_S,
    SWITCH_S,
    USUAL_S,
    AllPublished,
    Answers,
    Publisher,
    stepped_back,
)
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import grid
from convserve_bench.generator import Calls, Generator
from convserve_bench.load import Load
from convserve_bench.transport import Address

_PACKAGES = ("convserve", "onnxruntime", "pygrpc-native")
_CONNECTIONS = 16
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Reload:
    """One version that replaced another.

    Attributes:
        workers: of the server.
        seconds: from publishing to the last answer of the version before.
        calls: that ended in the window.
        p99_ms: of these.
        slowest_ms: of these.
    """

    workers: int
    seconds: float
    calls: int
    p99_ms: float
    slowest_ms: float


@dataclass(frozen=True)
class Result:
    """All reloads of one server.

    Attributes:
        workers: of the server.
        reloads: how many.
        calls: that ended, all in all.
        failed: of these.
        stepped_back: answered by an older version than a call before.
        usual_p99_ms: of calls outside the windows.
        p99_ms: of all calls in the windows.
        worst_p99_ms: of the window in which it was largest.
        ratio: of p99_ms to usual_p99_ms.
    """

    workers: int
    reloads: int
    calls: int
    failed: int
    stepped_back: int
    usual_p99_ms: float
    p99_ms: float
    worst_p99_ms: float
    ratio: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.reload", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--reloads", type=whole(1), default=10, metavar="N", help="of each server [default: 10]"
    )
    result.add_argument(
        "--workers", type=whole(1), nargs="+", default=[1, 2], metavar="N",
        help="of each server [default: 1 2]",
    )  # fmt: skip
    result.add_argument(
        "--callers", type=whole(_CONNECTIONS), default=64, metavar="N", help="[default: 64]"
    )
    result.add_argument("--flags", default="", metavar="FLAGS", help="more for convserve-serve")
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print.

    Raises:
        BenchmarkError: with the server's output, if a version does not come to be served.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    reloads: list[Reload] = []
    results: list[Result] = []
    for workers in arguments.workers:
        answers, windows = _measure(bundle, workers, arguments)
        of_server, result = _evaluate(answers, windows, workers)
        reloads += of_server
        results.append(result)
        tell(str(result))
    on = machine(_PACKAGES)
    what = {"model": bundle.model, "callers": arguments.callers, "reloads": arguments.reloads}
    details = (f"{bundle.model}, {arguments.callers} callers over {_CONNECTIONS} connections",)
    print(heading(on, "server and load together", details), _table(results), sep="\n\n")
    write_json(arguments.json, on, what, reloads=reloads, results=results)


def _measure(
    bundle: Bundle, workers: int, arguments: argparse.Namespace
) -> tuple[Answers, list[tuple[float, float]]]:
    """Every answer, and the window of each reload in seconds of the generator's clock."""
    with tempfile.TemporaryDirectory(prefix="convserve-models-") as models:
        copied = bundle.copy_to(Path(models))
        questions = Questions.of_pixels(copied, 1)
        server = ours(copied.file, f"--workers {workers} {arguments.flags}".strip())[-1]
        answers = Answers(questions.least_reply_bytes(1))
        publisher = Publisher(copied.file.parents[1], arguments.reloads, answers)
        load = Load(
            callers=arguments.callers,
            connections=_CONNECTIONS,
            seconds=arguments.reloads * (SWITCH_S + 2 * USUAL_S),
            warm_up_s=0.0,
            timeout_s=_TIMEOUT_S,
        )
        with running([Subject(server, questions)]), reported(server, ", reloading"):
            questions.check(server.address)
            calls = _calls(server.address, questions)
            with contextlib.suppress(AllPublished):
                Generator(load, calls, answers, publisher).run()
    return answers, publisher.windows


def _calls(address: str, questions: Questions) -> Calls:
    host, _, port = address.partition(":")
    call = questions.call(0, 1)
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", call.path.encode()),
        (b":authority", address.encode()),
        (b"te", b"trailers"),
        (b"content-type", call.content_type.encode()),
    ]
    message = b"\0" + len(call.body).to_bytes(4, "big") + call.body
    return Calls(Address(socket.AF_INET, (host, int(port))), fields, [message])


def _evaluate(
    answers: Answers, windows: Sequence[tuple[float, float]], workers: int
) -> tuple[list[Reload], Result]:
    began, ended, version = np.array(answers.rows, np.float64).T
    latency_ms = (ended - began) * 1e3
    inside = np.zeros(len(ended), bool)
    reloads = []
    for published_s, last_s in windows:
        window = (ended >= published_s) & (began <= last_s + AFTER_S)
        inside |= window
        reloads.append(
            Reload(
                workers=workers,
                seconds=last_s - published_s,
                calls=int(window.sum()),
                p99_ms=_p99(latency_ms[window]),
                slowest_ms=float(latency_ms[window].max()),
            )
        )
    usual_ms, p99_ms = _p99(latency_ms[~inside]), _p99(latency_ms[inside])
    result = Result(
        workers=workers,
        reloads=len(windows),
        calls=len(ended),
        failed=int((version == 0).sum()),
        stepped_back=stepped_back(began, ended, version),
        usual_p99_ms=usual_ms,
        p99_ms=p99_ms,
        worst_p99_ms=max(one.p99_ms for one in reloads),
        ratio=p99_ms / usual_ms,
    )
    return reloads, result


def _p99(latency_ms: NDArray[np.float64]) -> float:
    return float(np.percentile(latency_ms, 99))


def _table(results: Sequence[Result]) -> str:
    header = (
        "workers", "reloads", "calls", "failed", "stepped back", "usual p99 ms",
        "p99 ms in the windows", "largest of a window", "to usual",
    )  # fmt: skip
    lines = [
        (
            f"{one.workers}", f"{one.reloads}", f"{one.calls}", f"{one.failed}",
            f"{one.stepped_back}", f"{one.usual_p99_ms:.1f}", f"{one.p99_ms:.1f}",
            f"{one.worst_p99_ms:.1f}", f"{one.ratio:.2f}",
        )
        for one in results
    ]  # fmt: skip
    return grid(header, lines, ())


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

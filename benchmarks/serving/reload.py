"""Measures what callers notice of a reload: failed calls, slow ones, answers of the version before.

    python -m benchmarks.serving.reload --models models --model mnist

A copy of the model is published as the next version again and again, while callers ask without
pause over 16 connections. A window lasts from the moment of publishing until half a second after
the last answer of the version before. An answer steps back if its call began after an answer of a
newer version had come over any of the connections.
"""

import argparse
import math
import shutil
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
    BenchmarkError,
    add_models_option,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.meter import Subject, reported, running
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import grid
from convserve_bench.generator import Calls, Generator, clock
from convserve_bench.load import Load
from convserve_bench.outcomes import OK, Ended
from convserve_bench.tally import Tally
from convserve_bench.transport import Address
from convserve_protos import classifier_pb2 as pb

_PACKAGES = ("convserve", "onnxruntime", "pygrpc-native")
_CONNECTIONS = 16
_TIMEOUT_S = 30.0
#: Callers are at their usual pace before the first version is published, and between two, s.
_USUAL_S = 2.0
#: After the last answer of the version before, what it held is freed, s.
_AFTER_S = 0.5
#: A server that has not switched by then does not, s.
_SWITCH_S = 60.0


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


class Answers(Tally):
    """Keeps of every call when it began and ended, and which version answered.

    Attributes:
        rows: seconds of begin and end, and the version; 0 for a failure.
        newest: newest version that has answered.
        last_of: when each version last answered.
    """

    def __init__(self, least_reply_bytes: int) -> None:
        super().__init__(1, least_reply_bytes)
        self.rows: list[tuple[float, float, int]] = []
        self.last_of: dict[int, float] = {}

    @property
    def newest(self) -> int:
        """The newest version that has answered; 0 before any has."""
        return max(self.last_of, default=0)

    def add(self, ended: Sequence[Ended], now_s: float) -> None:
        """See Tally.add."""
        super().add(ended, now_s)
        for started_s, status, reply in ended:
            version = pb.ClassifyResponse.FromString(reply).version if status is OK else 0
            self.rows.append((started_s, now_s, version))
            self.last_of[version] = now_s


class Publisher:
    """Publishes version after version, each some time after all callers have had the one before.

    Args:
        folder: of the model, with version 1 in it.
        reloads: versions to publish after it.
        answers: what the callers had.
    """

    def __init__(self, folder: Path, reloads: int, answers: Answers) -> None:
        self._folder = folder
        self._answers = answers
        # Made beforehand: only the renaming takes place among the calls.
        for version in range(2, reloads + 2):
            shutil.copytree(folder / "1", folder / f".{version}")
        self._last = reloads + 1
        self._due_s = math.inf
        #: When each was published, and when the last answer of the one before came.
        self.windows: list[tuple[float, float]] = []
        self._published_s: list[float] = []

    @property
    def done(self) -> bool:
        """Whether all callers have had the last version for some time."""
        return len(self.windows) == self._last - 1

    def __call__(self, _seconds: float, _tally: Tally) -> None:
        """Publishes if it is time; called each tick."""
        now_s = clock()
        if self._due_s == math.inf:
            self._due_s = now_s + _USUAL_S
        if len(self._published_s) > len(self.windows):
            self._look_for_the_switch(now_s)
        elif now_s >= self._due_s and not self.done:
            version = len(self._published_s) + 2
            self._published_s.append(clock())
            (self._folder / f".{version}").rename(self._folder / f"{version}")

    def _look_for_the_switch(self, now_s: float) -> None:
        version, published_s = len(self._published_s) + 1, self._published_s[-1]
        last_s = max((at for one, at in self._answers.last_of.items() if one < version), default=0)
        if self._answers.newest == version and now_s > last_s + _AFTER_S:
            self.windows.append((published_s, last_s))
            self._due_s = now_s + _USUAL_S
        elif now_s > published_s + _SWITCH_S:
            raise BenchmarkError(f"version {version} is not served after {_SWITCH_S:g} s")


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
    with tempfile.TemporaryDirectory(prefix="convserve-reload-") as folder:
        versions = Path(folder, bundle.model)
        (versions / "1").mkdir(parents=True)
        file = Path(shutil.copy(bundle.file, versions / "1" / bundle.file.name))
        copied = Bundle(file)
        questions = Questions.of_pixels(copied, 1)
        server = ours(file, f"--workers {workers} {arguments.flags}".strip())[-1]
        subject = Subject(server, questions)
        answers = Answers(questions.least_reply_bytes(1))
        publisher = Publisher(versions, arguments.reloads, answers)
        with running([subject]), reported(server, ""):
            questions.check(server.address)
            generator = Generator(
                Load(
                    callers=arguments.callers,
                    connections=_CONNECTIONS,
                    seconds=arguments.reloads * (_SWITCH_S + 2 * _USUAL_S),
                    warm_up_s=0.0,
                    timeout_s=_TIMEOUT_S,
                ),
                _calls(server.address, questions),
                answers,
                _until_done(publisher),
            )
            try:
                generator.run()
            except _DoneError:
                pass
            except BenchmarkError as error:
                raise BenchmarkError(f"{error}\n{server.output()}") from error
            tell(server.output())
    return answers, publisher.windows


class _DoneError(Exception):
    pass


def _until_done(publisher: Publisher):  # type: ignore
    def watch(seconds: float, tally: Tally) -> None:
        publisher(seconds, tally)
        if publisher.done and clock() > publisher.windows[-1][1] + _AFTER_S + _USUAL_S:
            raise _DoneError

    return watch


def _calls(address: str, questions: Questions) -> Calls:
    host, _, port = address.partition(":")
    body, _, path, content_type = questions.call(0, 1)
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", address.encode()),
        (b"te", b"trailers"),
        (b"content-type", content_type.encode()),
    ]
    import socket

    message = b"\0" + len(body).to_bytes(4, "big") + body
    return Calls(Address(socket.AF_INET, (host, int(port))), fields, [message])


def _evaluate(
    answers: Answers, windows: Sequence[tuple[float, float]], workers: int
) -> tuple[list[Reload], Result]:
    rows = np.array(answers.rows, np.float64)
    began, ended, version = rows.T
    latency_ms = (ended - began) * 1e3
    inside = np.zeros(len(rows), bool)
    reloads = []
    for published_s, last_s in windows:
        window = (ended >= published_s) & (began <= last_s + _AFTER_S)
        inside |= window
        p99 = float(np.percentile(latency_ms[window], 99))
        reloads.append(
            Reload(
                workers,
                last_s - published_s,
                int(window.sum()),
                p99,
                latency_ms[window].max().item(),
            )
        )
        tell(str(reloads[-1]))
    usual = float(np.percentile(latency_ms[~inside], 99))
    p99 = float(np.percentile(latency_ms[inside], 99))
    result = Result(
        workers=workers,
        reloads=len(windows),
        calls=len(rows),
        failed=int((version == 0).sum()),
        stepped_back=_stepped_back(began, ended, version),
        usual_p99_ms=usual,
        p99_ms=p99,
        worst_p99_ms=max(one.p99_ms for one in reloads),
        ratio=p99 / usual,
    )
    return reloads, result


def _stepped_back(
    began: NDArray[np.float64], ended: NDArray[np.float64], version: NDArray[np.float64]
) -> int:
    """How many answers are of an older version than one that came before the call began."""
    order = np.argsort(ended, kind="stable")
    newest = np.maximum.accumulate(version[order])
    before = np.searchsorted(ended[order], began, side="left") - 1
    seen = np.where(before >= 0, newest[np.maximum(before, 0)], 0)
    return int(((version < seen) & (version > 0)).sum())


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

"""Measures what traces and the access log cost: µs a call in the worker, and processor time a call.

    python -m benchmarks.serving.tracing_cost --models models --model mnist
    python -m benchmarks.serving.tracing_cost --models models --model mnist --against REV

First in this process: what is left on the way of a call while both are off; and a call through a
router whose handler answers at once, followed in each of the ways. What serving threads pay counts,
not the thread that makes the spans. Then servers with the native front at 64 callers, in turn, the
one with both off twice: the difference between these two is chance. Spans go to a collector that
only answers.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import Call as Question
from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import add_run_options, add_server_options, execute, new_parser
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import server_of
from benchmarks.harness.table import Cell, grid, markdown, rows
from convserve_server.core.errors import ServeError
from convserve_server.protocols import grpc_errors
from convserve_server.protocols.base import Call, Caller, Failure, Metadata, header_in
from convserve_server.protocols.call_follower import CallFollower
from convserve_server.protocols.router import Router
from convserve_server.telemetry.access_log import AccessLog
from convserve_server.telemetry.tracing import Tracing

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "opentelemetry-sdk", "pygrpc-native")
_CELL = Cell(64, 1)
_METHOD = "/bench.Service/Answer"
#: Of one repetition, calls.
_CALLS = 20_000
#: Sampled calls fill the queue of the SDK, which then does more; fewer at a time.
_FEW_CALLS = 500
#: For what is sent meanwhile, s.
_FLUSH_S = 30.0

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
_SAMPLED = (("traceparent", f"{_TRACE}01"),)
_UNSAMPLED = (("traceparent", f"{_TRACE}00"),)
#: As grpcio's client sends them.
_FIELDS: Metadata = (
    ("user-agent", "grpc-python/1.85.1 grpc-c/52.0.0 (linux; chttp2)"),
    ("accept-encoding", "identity, deflate, gzip"),
    ("grpc-accept-encoding", "identity, deflate, gzip"),
)


@dataclass(frozen=True)
class Cost:
    """What a way of following calls costs.

    Attributes:
        way: its name.
        us: of each round, µs a call.
    """

    way: str
    us: list[float]


class _UnsentCall(Call):
    """A call whose answer is forgotten."""

    __slots__ = ("metadata",)

    def __init__(self, metadata: Metadata) -> None:
        super().__init__(_METHOD, b"", None, "ipv4:127.0.0.1:1")
        self.metadata = metadata

    def caller(self) -> Caller:
        return Caller(self.connection, self.metadata)

    def header(self, name: str) -> str | bytes | None:
        return header_in(self.metadata, name)

    def send(self, payload: bytes) -> bool:
        return True

    def send_failure(self, failure: Failure) -> None:
        raise AssertionError(failure)


class _AtOnce:
    """A service that answers at once."""

    name = "bench.Service"

    def unary(self) -> Mapping[str, Callable[[Call], None]]:
        return {"Answer": lambda call: call.reply(b"")}

    def streams(self) -> Mapping[str, Any]:
        return {}

    def failure(self, error: ServeError) -> Failure:
        return grpc_errors.to_failure(error)

    def drain(self) -> None:
        pass


@dataclass(frozen=True)
class _WithHeaders:
    """Questions with header fields; see RequestSet."""

    asked: Questions
    headers: tuple[tuple[str, str], ...]

    @property
    def rows(self) -> NDArray[np.float32]:
        return self.asked.rows

    def call(self, first: int, count: int) -> Question:
        return self.asked.call(first, count)._replace(headers=self.headers)

    def check(self, address: str) -> None:
        self.asked.check(address)


class _Collector(grpc.GenericRpcHandler):
    """Answers every call with an empty message."""

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


@contextmanager
def collector() -> Iterator[str]:
    """Runs a collector; yields its URL."""
    server = grpc.server(ThreadPoolExecutor(2), [_Collector()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def _tests_us() -> float:
    """Returns what is left of a call while all is off: tests, and one value that is passed on."""
    call, follower, failure = _UnsentCall(_FIELDS), CallFollower(), None

    def tests(notes: object) -> None:
        call.notes = None  # Call.__init__
        if follower.active:  # Router.handle
            raise AssertionError
        if failure is not None or call.notes is not None:  # Router.ended
            raise AssertionError
        if notes is not None:  # BatchRequest.__init__
            raise AssertionError
        if call.notes is not None:  # Classifier, before the queue
            raise AssertionError
        _ = [one for one in (call,) if one.notes is not None]  # Batcher, a batch of one

    def nothing(notes: object) -> None:
        pass

    return _timed_us(lambda: tests(call.notes)) - _timed_us(lambda: nothing(None))


def _timed_us(function: Callable[[], None]) -> float:
    began = time.perf_counter()
    for _ in range(_CALLS):
        function()
    return (time.perf_counter() - began) / _CALLS * 1e6


def _calls_us(router: Router, metadata: Metadata, count: int) -> float:
    """Returns processor time of this thread for a call through the router, µs."""
    calls = [_UnsentCall(metadata) for _ in range(count)]
    began = time.thread_time()
    for call in calls:
        router.handle(call)
    return (time.thread_time() - began) / count * 1e6


def micro_costs(url: str, rounds: int) -> list[Cost]:
    """Measures in this process.

    Args:
        url: of a collector.
        rounds: of which each begins with another way.
    """
    traces = Tracing(url, 0.0)
    ways: list[tuple[str, CallFollower, Metadata, int]] = [
        ("off", CallFollower(), _FIELDS, _CALLS),
        ("off, again", CallFollower(), _FIELDS, _CALLS),
        ("traces, no traceparent", CallFollower(None, traces), _FIELDS, _CALLS),
        ("traces, unsampled traceparent", CallFollower(None, traces), _FIELDS + _UNSAMPLED, _CALLS),
        ("traces, sampled traceparent", CallFollower(None, traces), _FIELDS + _SAMPLED, _FEW_CALLS),
        ("access log of errors", CallFollower(AccessLog("errors")), _FIELDS, _CALLS),
    ]
    routers = {way: Router([_AtOnce()], follower=follower) for way, follower, _, _ in ways}
    costs = [Cost("tests that are left while off", []), *(Cost(way, []) for way, *_ in ways)]
    for _ in range(rounds):
        costs[0].us.append(_tests_us())
        for cost, (way, _, metadata, count) in zip(costs[1:], ways, strict=True):
            cost.us.append(_calls_us(routers[way], metadata, count))
            traces.flush(_FLUSH_S)
    traces.close()
    return costs


def subjects(
    bundle: Bundle, asked: Questions, url: str, flags: str, against: Source | None
) -> list[Subject]:
    """Returns the servers that are measured, and how each is asked."""
    ways = [
        ("off", "", ()),
        ("off, again", " ", ()),
        ("traces, no traceparent", f"--traces {url}", ()),
        ("traces, unsampled traceparent", f"--traces {url} ", _UNSAMPLED),
        ("traces, 1 % sampled", f"--traces {url} --trace-share 0.01", ()),
        ("traces, sampled traceparent", f"--traces {url}  ", _SAMPLED),
        ("access log of errors", "--access-log errors", ()),
    ]
    found = []
    if against is not None:
        server = server_of(against, "native", bundle.file, flags)
        found.append(Subject(server, asked, against.name))
    for title, more, headers in ways:
        server = server_of(Source.today(), "native", bundle.file, f"{flags} {more}")
        found.append(Subject(server, _WithHeaders(asked, headers), title))
    return found


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.tracing_cost", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument("--against", metavar="REV", help="measure this revision as well")
    result.add_argument(
        "--only", choices=["worker", "servers"], help="measure one of the two [default: both]"
    )
    add_run_options(result, rounds=5, measured="way")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest, choose_driver and checked_out.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on, about = machine(_PACKAGES), meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about))
    costs: list[Cost] = []
    table = []
    with collector() as url:
        if arguments.only != "servers":
            costs = micro_costs(url, arguments.rounds)
            lines = [
                [cost.way, f"{statistics.median(cost.us):.2f} "
                 f"({min(cost.us):.2f}..{max(cost.us):.2f})"]
                for cost in costs
            ]  # fmt: skip
            print("", grid(["in the worker", "µs a call"], lines, {"in the worker"}), sep="\n")
        if arguments.only != "worker":
            against = checked_out(arguments.against) if arguments.against else None
            asked = Questions.of_pixels(bundle, 1)
            measured_ones = subjects(bundle, asked, url, arguments.flags, against)
            with running(measured_ones):
                measured = list(measurements(meter, measured_ones, [_CELL], arguments.rounds))
            table = rows(measured, measured_ones[0].name)
            print("", markdown(table), sep="\n")
    write_json(arguments.json, on, about, costs=costs, rows=table)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Where the time of a call goes, by what the server says in its replies' Timings."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.harness.command import tell
from benchmarks.harness.load import Answer, OwnDriver
from benchmarks.harness.meter import Meter, Subject, interleaved, reported
from benchmarks.harness.table import Cell, grid
from convserve_protos import classifier_pb2 as pb

_HEADER = (
    "callers",
    "server",
    "calls",
    "latency ms, mean",
    "queue ms (share)",
    "decode ms (share)",
    "engine ms (share)",
    "rest ms (share)",
    "images a run",
)


@dataclass(frozen=True)
class CallTimes:
    """Means over all calls, in milliseconds; the parts sum up to the latency."""

    server: str
    cell: Cell
    calls: int
    latency_ms: float
    #: Waiting for a thread that decodes, and for the engine.
    queue_ms: float
    decode_ms: float
    engine_ms: float
    #: Network, protobuf, front, and the caller itself.
    rest_ms: float
    #: Images to runs of the engine; see runs().
    images_a_run: float


@dataclass(frozen=True)
class _Call:
    answer: Answer
    timings: pb.Timings


def call_times(
    meter: Meter, subjects: Sequence[Subject], cells: Sequence[Cell], rounds: int
) -> list[CallTimes]:
    """Calls with real clients and keeps the timings of the replies.

    The callers are coroutines of our own, which take processor time from the servers; compare
    shares with each other, not latencies with those under another driver.

    Raises:
        BenchmarkError: with the server's output, if a call failed or an answer was wrong.
    """
    driver = OwnDriver()
    calls: defaultdict[tuple[Cell, str], list[_Call]] = defaultdict(list)
    ran: defaultdict[tuple[Cell, str], int] = defaultdict(int)
    for round_, cell, subject in interleaved(subjects, cells, rounds):
        server = subject.server
        with reported(server, f", {cell}, real clients"):
            answers = driver.answers(meter.task(subject, cell, round_))
            subject.questions.check(server.address)
        replies = [
            _Call(answer, pb.ClassifyResponse.FromString(answer.reply).timings)
            for answer in answers
        ]
        calls[cell, server.name] += replies
        ran[cell, server.name] += runs((one.answer.ended_s, one.timings) for one in replies)
        tell(f"call times, round {round_}, {cell}, {server.name}: {len(replies)} calls")
    return [
        _times(server, cell, calls[cell, server], ran[cell, server])
        for cell in cells
        for server in (subject.server.name for subject in subjects)
    ]


def runs(replies: Iterable[tuple[float, pb.Timings]]) -> int:
    """In how many runs of the engine calls of one image were answered.

    Replies of one run have the same time in it, to the microsecond. Two runs of one engine that
    happen to take equally long end at least that long after each other, so replies further apart
    than half of it are of two runs. Counted as one are runs of two workers that take equally long
    and end together: about one in a thousand for runs of milliseconds.

    Args:
        replies: when each came, s, and its timings; in order of coming.
    """
    seen: dict[int, float] = {}
    count = 0
    for ended_s, timings in replies:
        before_s = seen.get(timings.compute_us)
        if before_s is None or ended_s - before_s > timings.compute_us / 2e6:
            count += 1
        seen[timings.compute_us] = ended_s
    return count


def _times(server: str, cell: Cell, calls: Sequence[_Call], runs: int) -> CallTimes:
    count = len(calls)
    latency_ms = sum(call.answer.latency_s for call in calls) / count * 1e3
    queue_ms = sum(call.timings.queue_us for call in calls) / count / 1e3
    decode_ms = sum(call.timings.decode_us for call in calls) / count / 1e3
    engine_ms = sum(call.timings.compute_us for call in calls) / count / 1e3
    return CallTimes(
        server=server,
        cell=cell,
        calls=count,
        latency_ms=latency_ms,
        queue_ms=queue_ms,
        decode_ms=decode_ms,
        engine_ms=engine_ms,
        rest_ms=latency_ms - queue_ms - decode_ms - engine_ms,
        images_a_run=count / runs,
    )


def markdown(table: Sequence[CallTimes]) -> str:
    """The times as a Markdown table."""
    lines = [
        (
            f"{one.cell.callers}",
            one.server,
            f"{one.calls}",
            f"{one.latency_ms:.2f}",
            *(
                f"{part:.2f} ({part / one.latency_ms:.0%})"
                for part in (one.queue_ms, one.decode_ms, one.engine_ms, one.rest_ms)
            ),
            f"{one.images_a_run:.2f}",
        )
        for one in table
    ]
    return grid(_HEADER, lines, {"server"})

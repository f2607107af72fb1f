"""What is sent to a server under overload, and what is found."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.table import grid

#: Of the calls, sent late, from which on a point is not reached.
_MOST_LATE = 0.01


@dataclass(frozen=True)
class Workload:
    """What is sent.

    Args:
        name: for the table and --workloads.
        images: in each call.
        photographs: files to a model of photographs, rather than pixels to one of digits.
        callers: that find the most a server answers.
        library: sent by the library's client.
    """

    name: str
    images: int = 1
    photographs: bool = False
    callers: int = 64
    library: bool = False


WORKLOADS = (
    Workload("photographs", photographs=True, callers=32),
    Workload("photographs, library", photographs=True, callers=32, library=True),
    Workload("digits, 64 a call", images=64, callers=16),
    Workload("single digits"),
)


@dataclass(frozen=True)
class Point:
    """One load on one server.

    Attributes:
        workload: its name.
        server: its name.
        deadline_ms: of each call.
        capacity: the most that the server answers, calls/s.
        load: calls due, as a multiple of that.
        good: answered within the deadline, as a share of it.
        good_a_cpu_second: answered in time for each second of the server's processor time, as a
            share of what it is at most: what `good` would be on a machine without other work.
        refused: RESOURCE_EXHAUSTED, as a share of the calls that were due.
        expired: DEADLINE_EXCEEDED, likewise, by the server or by the client.
        others: every other error, likewise, by its name.
        too_late: of the images that the engine computed, those of calls without an answer in time.
        p50_ms: of the good answers, from when they were due.
        p99_ms: likewise.
        late: calls that the generator sent late, or never, as a share of all that were due.
        lost: connections that were lost.
        tries: of each call by the library.
        memory_before_mib: private, of all processes of the server, before.
        memory_mib: after it.
        generator_cpu: share of its CPU.
    """

    workload: str
    server: str
    deadline_ms: float
    capacity: float
    load: float
    good: float
    good_a_cpu_second: float
    refused: float
    expired: float
    others: dict[str, float]
    too_late: float
    p50_ms: float
    p99_ms: float
    late: float
    lost: int
    tries: float
    memory_before_mib: float
    memory_mib: float
    generator_cpu: float

    @property
    def reached(self) -> bool:
        """Whether the load was as high as it says."""
        return self.late <= _MOST_LATE


def markdown(points: Sequence[Point]) -> str:
    """The table."""
    header = (
        "sent", "server", "at most, calls/s", "load", "good, % of that", "a CPU second, %",
        "refused %", "expired %", "other errors %", "computed too late %",
        "p50 ms", "p99 ms", "tries", "MiB",
    )  # fmt: skip
    lines = [
        (
            point.workload,
            point.server,
            f"{point.capacity:.0f}",
            f"{point.load:.2g}"
            + ("" if point.reached else f" (not reached, {point.late:.0%} late)"),
            f"{point.good * 100:.0f}",
            f"{point.good_a_cpu_second * 100:.0f}",
            f"{point.refused * 100:.1f}",
            f"{point.expired * 100:.1f}",
            ", ".join(f"{name} {share * 100:.1f}" for name, share in point.others.items()) or "0",
            f"{point.too_late * 100:.1f}",
            f"{point.p50_ms:.1f}",
            f"{point.p99_ms:.1f}",
            f"{point.tries:.2f}",
            f"{point.memory_before_mib:.0f} to {point.memory_mib:.0f}",
        )
        for point in points
    ]
    return grid(header, lines, {"sent", "server"})

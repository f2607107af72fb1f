"""One run: made, and what it showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convserve_bench.generator import Generator, Watch
from convserve_bench.histogram import Histogram
from convserve_bench.load import Load
from convserve_bench.tally import Failures, Tally
from convserve_bench.workload import Workload

#: Of a core. From there on the generator may be what limits the rate.
_BUSY_SHARE = 0.85
#: Of the calls of a schedule: sent too late, not sent at all.
_LATE_SHARE = _UNSENT_SHARE = 0.01


@dataclass(frozen=True)
class Measured:
    """What a run showed.

    Attributes:
        load: Its settings.
        images: In each call.
        seconds: How long was measured: less than asked for if it was interrupted.
        calls_per_s: Calls answered in that time.
        latencies: Of the calls that began in that time.
        failures: Of these calls, such as got no right answer.
        server_us: Means of the time in the server by part; None if its replies do not say.
        cpu_us_a_call: Processor time of the generator.
        cpu_share: The same as a share of one core.
        unsent: Calls that were to be sent in that time and were not.
        waited: With a rate: calls that had to wait for a caller.
        late: With a rate: calls that the generator sent too late, though a caller was free.
        scheduled: With a rate: calls that were sent.
        lost: Connections that were lost.
        lost_reason: Why the last of these was.
    """

    load: Load
    images: int
    seconds: float
    calls_per_s: float
    latencies: Histogram
    failures: Failures
    server_us: Mapping[str, float] | None
    cpu_us_a_call: float
    cpu_share: float
    unsent: int
    waited: int
    late: int
    scheduled: int
    lost: int
    lost_reason: str

    @property
    def sent_late(self) -> bool:
        """Whether calls were begun too late or not at all: then latencies are not the server's."""
        return self.late > _LATE_SHARE * self.scheduled or self.unsent > _UNSENT_SHARE * (
            self.scheduled or self.latencies.count
        )

    @property
    def warnings(self) -> list[str]:
        """What makes the figures mean something else than they seem to, a line each."""
        found = []
        if self.cpu_share > _BUSY_SHARE:
            found.append(
                f"the generator itself used {self.cpu_share:.0%} of a core: the server may be able"
                " to do more; run several at once"
            )
        if self.late > _LATE_SHARE * self.scheduled:
            found.append(
                f"the generator itself sent {self.late / self.scheduled:.1%} of the calls more than"
                f" {self.load.late_s * 1e3:g} ms late, which their latencies include: this machine"
                " is too busy for this rate"
            )
        if self.unsent > _UNSENT_SHARE * (self.scheduled or self.latencies.count):
            found.append(
                f"{self.unsent:,} calls that were due were never sent, since the callers were busy"
                " to the end: true latencies are longer; the rate is more than the server answers,"
                " or --callers is too small"
            )
        if self.lost:
            found.append(f"connections lost: {self.lost:,}; the last one: {self.lost_reason}")
        return found


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came in the middle of a run.

    Attributes:
        measured: What was measured until then; None if nothing was.
        cause: What came.
    """

    def __init__(self, measured: Measured | None, cause: KeyboardInterrupt) -> None:
        super().__init__("interrupted")
        self.measured = measured
        self.cause = cause


def measure(load: Load, workload: Workload, watch: Watch) -> Measured:
    """Makes the load, and returns what it showed.

    Args:
        load: How much.
        workload: What is sent.
        watch: Called each tick.

    Raises:
        ServerUnavailable: The server could not be connected to.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    tally = Tally(workload.images, workload.least_reply_bytes, load.timeout_s)
    generator = Generator(load, workload.calls, tally, watch)
    try:
        generator.run()
    except KeyboardInterrupt as interrupt:
        measured = _measured(load, workload, generator, tally) if generator.seconds else None
        raise Interrupted(measured, interrupt) from interrupt
    return _measured(load, workload, generator, tally)


def _measured(load: Load, workload: Workload, generator: Generator, tally: Tally) -> Measured:
    schedule = generator.schedule
    cpu_s = generator.cpu_s or 0.0
    lost, reason = generator.lost
    return Measured(
        load=load,
        images=workload.images,
        seconds=generator.seconds,
        calls_per_s=tally.answered / generator.seconds,
        latencies=tally.histogram,
        failures=tally.failures,
        server_us=tally.server.means_us(),
        cpu_us_a_call=cpu_s / max(1, generator.calls) * 1e6,
        cpu_share=cpu_s / generator.seconds,
        unsent=generator.unsent,
        waited=schedule.waited if schedule else 0,
        late=schedule.late if schedule else 0,
        scheduled=schedule.sent if schedule else 0,
        lost=lost,
        lost_reason=reason,
    )

import io

from convserve_bench.outcomes import OK, Ended, Status
from convserve_bench.progress import Progress
from convserve_bench.tally import Tally

WIPE = "\r\x1b[K"


def tally_of(latencies_s: list[float], failed: int = 0) -> Tally:
    tally = Tally(0, 0)
    tally.between(0.0, 100.0)
    add(tally, latencies_s, failed)
    return tally


def add(tally: Tally, latencies_s: list[float], failed: int = 0) -> None:
    for latency_s in latencies_s:
        tally.add([Ended(1.0, OK, b"")], 1.0 + latency_s)
    tally.add([Ended(1.0, Status("INTERNAL"), b"")] * failed, 2.0)
    tally.flush()


def test_a_line_a_second_shows_that_second() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    tally = tally_of([0.0015] * 100)
    progress(0.5, tally)
    assert stream.getvalue() == ""
    progress(1.0, tally)
    first = stream.getvalue()
    assert first.startswith(f"{WIPE}  1 s  100 calls/s  p50 1.50 ms")
    add(tally, [0.0025] * 50, failed=3)
    progress(1.5, tally)
    assert stream.getvalue() == first
    progress(2.0, tally)
    second = stream.getvalue().removeprefix(first)
    assert second.startswith(f"{WIPE}  2 s  53 calls/s  p50 2.4")
    assert second.endswith("3 failed")
    progress.close()
    assert stream.getvalue().endswith(WIPE)


def test_the_next_run_begins_again() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress(5.0, tally_of([0.001] * 100))
    progress(0.0, tally_of([]))
    progress(1.0, tally_of([0.0025] * 10))
    assert stream.getvalue().rpartition(WIPE)[2].startswith("  1 s  10 calls/s  p50 2.4")

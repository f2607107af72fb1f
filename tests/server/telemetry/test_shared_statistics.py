"""The counts of several processes, in memory that they share."""

import itertools
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convserve_server.host import shared_memory
from convserve_server.telemetry.layouts import (
    BOUNDS,
    BUCKETS,
    OTHER,
    SIZE_BOUNDS,
    size_bucket,
)
from convserve_server.telemetry.layouts import VERSIONS as ROWS
from convserve_server.telemetry.observer import Observer, Observers
from convserve_server.telemetry.shared_statistics import (
    SLOTS_OF_PROCESS,
    SharedStatistics,
    statistics_bytes,
)
from convserve_server.telemetry.statistics import Durations, VersionStatistics
from convserve_server.telemetry.totals import CallKey, Totals
from tests.program import Program

ROOT = Path(__file__).parents[3]
WORKERS = 2
MS = 1_000_000


class Memory:
    """The memory of a server of two workers."""

    def __init__(self) -> None:
        self.descriptor = shared_memory.create("test", statistics_bytes(WORKERS))

    def slot(self, slot: int) -> SharedStatistics:
        return SharedStatistics(shared_memory.shared(self.descriptor), slot)

    def process(self, code: str, slot: int) -> "Program[str]":
        """A process that counts in a slot: as `counts` in the code."""
        head = (
            "import sys\n"
            "from convserve_server.host.shared_memory import shared\n"
            "from convserve_server.telemetry.shared_statistics import SharedStatistics\n"
            f"counts = SharedStatistics(shared({self.descriptor}), {slot})\n"
        )
        return Program(
            [sys.executable, "-c", head + code],
            cwd=ROOT,
            pass_fds=(self.descriptor,),
            stdout=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def memory() -> Memory:
    return Memory()


def count(counts: SharedStatistics, images: int = 1, model: str = "mnist/3") -> None:
    """One batch of as many requests."""
    now = time.monotonic()
    counts.batch(model, images, 0.002, [now - 0.003] * images, 0.003 * images, now)


def only(counts: SharedStatistics) -> VersionStatistics:
    (version,) = counts.versions()
    return version


def test_each_event_is_counted_where_it_belongs() -> None:
    counts = SharedStatistics()
    before_ms = time.time() * 1000
    now = time.monotonic()
    counts.batch("mnist/3", 4, 0.002, [now - 0.005, now - 0.009], 0.014, now)
    counts.batch("mnist/3", 4, 0.004, [], 0.0, now)
    counts.batch("mnist/3", 1, 0.001, [now - 0.001], 0.001, now)
    counts.joined("mnist/3", 0.005, 0.006, 0.020)
    counts.failed("mnist/3", "INTERNAL_FAULT", 0.007)
    counts.turned_away("mnist/3", 5)
    counts.decoded("mnist/3", 3, 0.5, 0.008)
    found = only(counts)
    assert found.last_ms == pytest.approx(before_ms, abs=10_000)
    assert found == VersionStatistics(
        "mnist",
        3,
        last_ms=found.last_ms,
        rows=9,
        batches=3,
        success=Durations(4, 35 * MS),
        fail=Durations(6, 7 * MS),
        queue=Durations(4, 15 * MS),
        decode=Durations(1, 8 * MS),
        compute=Durations(4, 11 * MS),
        by_size={1: Durations(1, 1 * MS), 4: Durations(2, 6 * MS)},
    )


def test_version_that_is_loaded_is_there_before_anybody_asks_for_it() -> None:
    counts = SharedStatistics()
    for model in ("mnist/3", "mnist/12", "cats/1", "mnist/3"):
        counts.loaded(model)
    assert counts.versions() == [
        VersionStatistics("cats", 1),
        VersionStatistics("mnist", 3),
        VersionStatistics("mnist", 12),
    ]


def test_longest_name_and_version_come_back_as_they_were() -> None:
    counts = SharedStatistics()
    name, version = "n" * 64, 10**18 - 1
    count(counts, model=f"{name}/{version}")
    assert (only(counts).name, only(counts).version) == (name, version)


def test_slots_are_added_up_by_version_and_anybody_sees_the_sum(memory: Memory) -> None:
    slots = [memory.slot(number) for number in range(WORKERS * SLOTS_OF_PROCESS)]
    # They met the versions in different orders.
    for number, slot in enumerate(slots):
        for model in ("mnist/3", "cats/1") if number % 2 else ("cats/1", "mnist/3"):
            count(slot, number + 1, model)
    count(slots[0], 7, "dogs/1")
    for slot in slots:
        found = {one.name: one for one in slot.versions()}
        assert [(name, found[name].rows) for name in found] == [
            ("cats", 10),
            ("dogs", 7),
            ("mnist", 10),
        ]
        assert found["mnist"].by_size == {size: Durations(1, 2 * MS) for size in (1, 2, 3, 4)}
        assert found["mnist"].success == Durations(10, 30 * MS)


def test_successor_goes_on_in_the_slot_of_a_process_that_was_killed(memory: Memory) -> None:
    code = (
        "for _ in range(3):\n"
        "    counts.finished('/s/Classify', 'mnist/3', 0, '', 0.004)\n"
        "counts.finished('/s/Classify', 'mnist/3', 8, 'QUEUE_FULL', 0.0)\n"
        "counts.refused('/s/Classify', 'QUEUE_FULL')\n"
        "counts.expired('batch', 1)\n"
        "counts.set_now(5, [('mnist/3', 7, 0.5)])\n"
        "for images in range(1, 70):\n"
        "    counts.batch('mnist/3', images, 0.002, [6.997] * images, 0.003 * images, 7.0)\n"
        "counts.failed('mnist/3', 'QUEUE_FULL', 0.0)\n"
        "print('counted', flush=True)\n"
        "sys.stdin.read()\n"
    )
    reader = memory.slot(0)
    rows = sum(range(1, 70))
    for lives in (1, 2):
        with memory.process(code, slot=1) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "counted\n"
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        found = only(reader)
        assert (found.rows, found.batches, found.fail.count) == (lives * rows, lives * 69, lives)
        assert found.success.count == found.queue.count == found.compute.count == lives * rows
        assert found.success.ns == pytest.approx(lives * rows * 3 * MS, rel=1e-9)
        # The first sizes each by itself, the others only in the number of batches.
        assert found.by_size == {size: Durations(lives, lives * 2 * MS) for size in range(1, 65)}
        totals = reader.totals
        assert counted(totals) == {"OK": 3 * lives, "RESOURCE_EXHAUSTED": lives}
        assert (totals.refused(), totals.expired()["batch"]) == ({"QUEUE_FULL": lives}, lives)
        # How it is now is of the process that is there, and of none once that has ended.
        (version,) = totals.versions().values()
        assert (totals.in_flight(), version.waiting, version.waiting_s) == (5, 7, 0.5)
        assert version.batch_images.counts[:8] == tuple(
            lives * n for n in (1, 1, 2, 4, 8, 16, 32, 5)
        )
        totals.clear_gauges(1)
        (version,) = totals.versions().values()
        assert (totals.in_flight(), version.waiting, version.waiting_s) == (0, 0, 0.0)
        assert version.images == lives * rows
    count(memory.slot(1), 70)
    assert only(reader).batches == 2 * 69 + 1


def counted(totals: Totals) -> dict[str, int]:
    """How many calls have ended with each code."""
    found: dict[str, int] = {}
    for key, times in totals.calls().items():
        found[key.code] = found.get(key.code, 0) + times.count
    return found


def test_versions_beyond_the_rows_are_counted_together_and_logged_once(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    counts = memory.slot(0)
    with caplog.at_level(logging.WARNING):
        for version in range(1, ROWS + 4):
            counts.loaded(f"mnist/{version}")
            count(counts, 2, f"mnist/{version}")
    (message,) = caplog.messages
    assert f"{ROWS} versions" in message
    assert f"mnist/{ROWS + 1}" in message
    # The next process of the slot finds all rows in use.
    count(memory.slot(0), 2, "mnist/1")
    count(memory.slot(0), 2, f"cats/{ROWS}")
    found = {(one.name, one.version): one for one in counts.versions()}
    assert len(found) == ROWS + 1
    assert found[OTHER, 0].rows == 2 * 4
    assert found["mnist", 1].rows == 4
    assert sum(one.rows for one in found.values()) == 2 * (ROWS + 5)
    counts.finished("/s/Classify", f"mnist/{ROWS + 1}", 0, "", 0.001)
    counts.finished("/s/Classify", "mnist/1", 0, "", 0.001)
    assert [key.model for key in counts.totals.calls()] == [OTHER, "mnist"]
    assert counts.totals.in_other() == 0
    counts.set_now(0, [(f"mnist/{ROWS + 1}", 1, 0.25), (f"mnist/{ROWS + 2}", 2, 0.5)])
    assert counts.totals.in_other() == 3
    other = counts.totals.versions()[OTHER, ""]
    assert (other.waiting, other.waiting_s) == (3, 0.75)


def test_calls_are_counted_by_method_model_version_and_code() -> None:
    counts = SharedStatistics()
    counts.know(["/s/Classify", "/s/List"])
    for _ in range(3):
        counts.finished("/s/Classify", "mnist/3", 0, "", 0.0015)
    counts.finished("/s/Classify", "mnist/3", 8, "QUEUE_FULL", 0.0)
    counts.finished("/s/Classify", "cats/12", 0, "", 40.0)
    counts.finished("/s/List", "", 0, "", 0.0001)
    # A protocol of its own may have other codes.
    counts.finished("/s/List", "", 418, "TEAPOT", 0.0)
    calls = counts.totals.calls()
    assert {tuple(key): times.count for key, times in calls.items()} == {
        ("/s/Classify", "cats", "12", "OK"): 1,
        ("/s/Classify", "mnist", "3", "OK"): 3,
        ("/s/Classify", "mnist", "3", "RESOURCE_EXHAUSTED"): 1,
        ("/s/List", "", "", "OK"): 1,
        ("/s/List", "", "", "UNKNOWN"): 1,
    }
    times = calls[CallKey("/s/Classify", "mnist", "3", "OK")]
    assert times.sum == pytest.approx(0.0045)
    # One that is on a bound is below it; one beyond all bounds is in the last bucket.
    assert times.counts.index(3) == BOUNDS.index(0.002)
    assert calls[CallKey("/s/List", "", "", "OK")].counts[BOUNDS.index(0.0001)] == 1
    assert calls[CallKey("/s/Classify", "cats", "12", "OK")].counts[-1] == 1


@given(
    seconds=st.lists(st.one_of(st.floats(0.0, 50.0), st.sampled_from(BOUNDS)), min_size=1),
    together=st.booleans(),
)
def test_answers_of_a_batch_count_as_one_by_one(seconds: list[float], together: bool) -> None:
    one_by_one, counts = SharedStatistics(), SharedStatistics()
    for one in seconds:
        one_by_one.finished("/s/Classify", "mnist/3", 0, "", one)
    observer = Observers([Observer(), counts]) if together else counts
    observer.answered("/s/Classify", "mnist/3", seconds[:2])
    observer.answered("/s/Classify", "mnist/3", seconds[2:])
    key = CallKey("/s/Classify", "mnist", "3", "OK")
    expected, found = one_by_one.totals.calls()[key], counts.totals.calls()[key]
    assert found.counts == expected.counts
    assert found.sum == pytest.approx(expected.sum)


def test_answers_of_a_batch_are_calls_that_are_finished_to_whoever_asks_no_more() -> None:
    class Finished(Observer):
        def __init__(self) -> None:
            self.calls: list[tuple[str, str, int, str, float]] = []

        def finished(self, *call: Any) -> None:
            self.calls.append(call)

    observer = Finished()
    observer.answered("/s/Classify", "mnist/3", [0.25, 0.5])
    assert observer.calls == [("/s/Classify", "mnist/3", 0, "", s) for s in (0.25, 0.5)]


def test_names_that_callers_make_up_share_one_row_each_and_no_memory() -> None:
    counts = SharedStatistics()
    counts.know(["/s/Classify"])
    cells = len(counts._cells)
    for number in range(5000):
        counts.finished(f"/made/Up{number}", "", 12, "UNIMPLEMENTED", 0.0)
    assert {tuple(key): times.count for key, times in counts.totals.calls().items()} == {
        (OTHER, "", "", "UNIMPLEMENTED"): 5000
    }
    assert len(counts._cells) == cells + 1
    for number in range(100):
        counts.refused("/s/Classify", f"REASON_{number}")
    counts.refused("/s/Classify", "LONG" * 100)
    refused = counts.totals.refused()
    assert len(refused) == 65
    assert (sum(refused.values()), refused[OTHER], refused["REASON_63"]) == (101, 37, 1)


def test_calls_that_are_refused_together_count_as_if_each_were_by_itself() -> None:
    together, each = SharedStatistics(), SharedStatistics()
    for _ in range(2):
        together.refused_together("/s/Classify", "mnist/3", 8, "QUEUE_FULL", 5)
        Observer.refused_together(each, "/s/Classify", "mnist/3", 8, "QUEUE_FULL", 5)
        together.finished("/s/Classify", "mnist/3", 8, "QUEUE_FULL", 0.5)
        each.finished("/s/Classify", "mnist/3", 8, "QUEUE_FULL", 0.5)
    assert counted(together.totals) == counted(each.totals) == {"RESOURCE_EXHAUSTED": 12}
    assert together.totals.calls() == each.totals.calls()
    assert together.totals.refused() == each.totals.refused() == {"QUEUE_FULL": 10}


def test_calls_beyond_the_rows_are_counted_by_their_code(memory: Memory) -> None:
    counts = memory.slot(0)
    for lives in (1, 2):
        for version in range(1, ROWS + 1):
            for code in range(9):
                counts.finished("/s/Classify", f"mnist/{version}", code, "", 0.001)
        found = counts.totals.calls()
        assert sum(times.count for times in found.values()) == lives * ROWS * 9
        assert sum(times.count for key, times in found.items() if key.code == "ABORTED") == 0
        other = {key.code: times.count for key, times in found.items() if key.method == OTHER}
        assert sum(other.values()) == lives * (ROWS * 9 - 4096)
        # The next process of the slot.
        counts = memory.slot(0)


def test_histogram_of_a_batch_is_that_of_each_of_its_requests() -> None:
    chance = random.Random(1)
    counts = SharedStatistics()
    expected = [0] * BUCKETS
    total = 0.0
    for _ in range(300):
        size = chance.choice([1, 2, 3, 17, 64])
        spread = 10 ** chance.uniform(-5, 2)
        started = 1000.0
        arrived = [started - chance.uniform(0, spread) for _ in range(size)]
        # Some exactly at bounds, and some that came in the same instant.
        arrived[:2] = [started - chance.choice([0.0, 0.5, 1.0, 2.0])] * len(arrived[:2])
        counts.batch("mnist/3", size, 0.25, arrived, 1.0, started + 0.25)
        for one in arrived:
            expected[bisect_left(BOUNDS, started - one)] += 1
            total += started - one
    (version,) = counts.totals.versions().values()
    assert list(version.queue.counts) == expected
    assert version.queue.sum == pytest.approx(total)
    assert version.compute.counts[bisect_left(BOUNDS, 0.25)] == sum(expected)
    assert version.compute.sum == pytest.approx(0.25 * sum(expected))


def test_request_of_several_batches_and_files_are_in_the_histograms() -> None:
    counts = SharedStatistics()
    counts.joined("mnist/3", 0.004, 0.02, 0.03)
    counts.decoded("mnist/3", 3, 0.5, 0.008)
    (version,) = counts.totals.versions().values()
    assert version.queue.counts[bisect_left(BOUNDS, 0.004)] == version.queue.count == 1
    assert version.compute.counts[bisect_left(BOUNDS, 0.02)] == version.compute.count == 1
    assert version.decode.counts[bisect_left(BOUNDS, 0.008)] == version.decode.count == 1
    assert (version.queue.sum, version.compute.sum, version.decode.sum) == (0.004, 0.02, 0.008)


def test_bounds_go_from_50_microseconds_to_30_seconds_in_steps_of_at_most_twice() -> None:
    assert (BOUNDS[0], BOUNDS[-1]) == (0.00005, 30.0)
    assert all(a < b <= 2 * a * (1 + 1e-9) for a, b in itertools.pairwise(BOUNDS))
    assert SIZE_BOUNDS == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    sizes = [1, 2, 3, 4, 5, 4096, 4097]
    assert [size_bucket(size) for size in sizes] == [bisect_left(SIZE_BOUNDS, n) for n in sizes]


def test_threads_that_count_at_once_lose_nothing() -> None:
    counts = SharedStatistics()

    def work() -> None:
        for _ in range(2000):
            count(counts, 3)
            counts.failed("mnist/3", "QUEUE_FULL", 0.001)
            counts.finished("/s/Classify", "mnist/3", 0, "", 0.001)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    found = only(counts)
    assert (found.rows, found.batches, found.fail.count) == (24_000, 8000, 8000)
    assert found.by_size[3].count == 8000
    assert counted(counts.totals) == {"OK": 8000}
    (version,) = counts.totals.versions().values()
    assert (version.queue.count, version.compute.count) == (24_000, 24_000)


def test_reader_never_sees_half_a_number(memory: Memory) -> None:
    """Both halves of what is counted change at once: a reader that sees one alone would differ."""
    step = 2**32 + 1
    code = (
        "print('counting', flush=True)\n"
        f"while True: counts.batch('mnist/3', {step}, 1.0, [], 0.0, 7.0)\n"
    )
    reader = memory.slot(0)
    with memory.process(code, slot=1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "counting\n"
        seen = [0]
        while len(set(seen)) < 200:
            seen += [one.rows for one in reader.versions()]
        process.kill()
    assert all(rows >> 32 == rows & (2**32 - 1) for rows in seen)
    assert all(before <= after for before, after in itertools.pairwise(seen))


def test_memory_is_needed_for_what_is_in_use_only() -> None:
    memory = Memory()
    for number in range(WORKERS * SLOTS_OF_PROCESS):
        count(memory.slot(number))
    status = os.fstat(memory.descriptor)
    assert status.st_size == statistics_bytes(WORKERS)
    assert status.st_blocks * 512 < status.st_size / 10

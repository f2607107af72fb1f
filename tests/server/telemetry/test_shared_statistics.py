"""The counts of several processes, in memory that they share."""

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convserve_server.host import shared_memory
from convserve_server.telemetry.layouts import OTHER
from convserve_server.telemetry.layouts import VERSIONS as ROWS
from convserve_server.telemetry.shared_statistics import (
    SLOTS_OF_WORKER,
    SharedStatistics,
    statistics_bytes,
)
from convserve_server.telemetry.statistics import Durations, VersionStatistics
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
    slots = [memory.slot(number) for number in range(WORKERS * SLOTS_OF_WORKER)]
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
    count(memory.slot(1), 70)
    assert only(reader).batches == 2 * 69 + 1


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


def test_threads_that_count_at_once_lose_nothing() -> None:
    counts = SharedStatistics()

    def work() -> None:
        for _ in range(2000):
            count(counts, 3)
            counts.failed("mnist/3", "QUEUE_FULL", 0.001)

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
    for number in range(WORKERS * SLOTS_OF_WORKER):
        count(memory.slot(number))
    status = os.fstat(memory.descriptor)
    assert status.st_size == statistics_bytes(WORKERS)
    assert status.st_blocks * 512 < status.st_size / 10

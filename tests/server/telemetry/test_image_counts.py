"""What sampled images are like: counted by several processes, all the time and in an hour."""

import mmap
from collections.abc import Mapping
from typing import Any

import pytest

from convserve_bundle.stability import Known, by_luck, stability_index
from convserve_server.telemetry.image_counts import PART_S, WINDOW_S, ImageTotals, totals
from convserve_server.telemetry.layouts import PARTS, TABLES, VERSIONS
from convserve_server.telemetry.observer import Observer, Observers
from convserve_server.telemetry.shared_statistics import SharedStatistics, statistics_bytes
from convserve_server.telemetry.slab import Slab

MODEL = "mnist/3"
BRIGHTNESS = Known((10.0, 20.0, 30.0), (0, 50, 50, 0))
CONFIDENCE = Known((0.1, 1.0), (0, 100, 0))
KNOWN = {"brightness": BRIGHTNESS, "confidence": CONFIDENCE}
NOW = 10 * WINDOW_S


@pytest.fixture
def memory() -> mmap.mmap:
    return mmap.mmap(-1, statistics_bytes(1))


def found(
    memory: mmap.mmap, now: float = NOW, name: str = "brightness", model: str = MODEL
) -> ImageTotals:
    return totals(Slab(memory, TABLES).tables("images"), now)[model, name]


def counting(
    memory: mmap.mmap, slot: int = 0, known: Mapping[str, Known] = KNOWN
) -> SharedStatistics:
    counts = SharedStatistics(memory, slot)
    counts.expects(MODEL, known)
    return counts


def test_images_of_all_processes_are_in_the_bins_of_the_manifest(memory: mmap.mmap) -> None:
    first, second = counting(memory), counting(memory, slot=1)
    first.sampled(MODEL, {"brightness": 10.0, "confidence": 0.5}, NOW)  # on a bound: below it
    first.sampled(MODEL, {"brightness": 10.5, "confidence": 0.6}, NOW)
    second.sampled(MODEL, {"brightness": 99.0, "confidence": 0.7}, NOW)
    brightness = found(memory)
    assert brightness.known == BRIGHTNESS
    assert brightness.counts == brightness.recent == (1, 1, 0, 1)
    assert brightness.sum == 119.5
    assert brightness.index == stability_index(BRIGHTNESS.counts, (1, 1, 0, 1))
    assert brightness.by_luck == by_luck(BRIGHTNESS.counts, 3)
    assert found(memory, name="confidence").counts == (0, 3, 0)


def test_value_that_the_manifest_does_not_state_is_not_counted(memory: mmap.mmap) -> None:
    counts = counting(memory, known={"brightness": BRIGHTNESS})
    counts.sampled(MODEL, {"brightness": 15.0, "size": 300.0}, NOW)
    counts.sampled("unknown/1", {"brightness": 15.0}, NOW)
    assert set(totals(Slab(memory, TABLES).tables("images"), NOW)) == {(MODEL, "brightness")}


def test_index_is_of_the_last_hour_and_counts_are_of_all_time(memory: mmap.mmap) -> None:
    counts = counting(memory)
    for part in range(PARTS + 3):
        counts.sampled(MODEL, {"brightness": 15.0}, NOW + part * PART_S)
    last = NOW + (PARTS + 2) * PART_S
    assert found(memory, last).recent == (0, PARTS, 0, 0)
    assert found(memory, last).counts == (0, PARTS + 3, 0, 0)
    assert found(memory, last + 2 * PART_S).recent == (0, PARTS - 2, 0, 0)
    later = found(memory, last + WINDOW_S)
    assert later.recent == (0, 0, 0, 0)
    assert later.index is later.by_luck is None


def test_successor_of_a_process_goes_on(memory: mmap.mmap) -> None:
    counting(memory).sampled(MODEL, {"brightness": 15.0}, NOW)
    counting(memory).sampled(MODEL, {"brightness": 25.0}, NOW)
    assert found(memory).counts == (0, 1, 1, 0)


def test_other_pictures_by_the_same_name_begin_anew(memory: mmap.mmap) -> None:
    """A version is removed, and another one comes in its place; one process has not had it yet."""
    for slot in (0, 1):
        counting(memory, slot).sampled(MODEL, {"brightness": 15.0, "confidence": 0.5}, NOW)
    other = Known((1.0, 2.0), (0, 7, 0))
    counts = counting(memory, slot=1, known={"brightness": other})
    counts.sampled(MODEL, {"brightness": 1.5}, NOW + PART_S)
    assert found(memory, NOW + PART_S).known == other
    assert found(memory, NOW + PART_S).counts == (0, 1, 0)
    assert (MODEL, "confidence") not in totals(Slab(memory, TABLES).tables("images"), NOW)


def test_versions_beyond_the_rows_are_not_counted(memory: mmap.mmap) -> None:
    counts = SharedStatistics(memory, 0)
    for number in range(VERSIONS + 2):
        counts.expects(f"mnist/{number}", KNOWN)
        counts.sampled(f"mnist/{number}", {"brightness": 15.0}, NOW)
    assert len(totals(Slab(memory, TABLES).tables("images"), NOW)) == 2 * VERSIONS


def test_several_observers_hear_of_images() -> None:
    class Heard(Observer):
        def __init__(self) -> None:
            self.events: list[Any] = []

        def expects(self, model: str, known: Mapping[str, Known]) -> None:
            self.events.append((model, known))

        def sampled(self, model: str, values: Mapping[str, float], now: float) -> None:
            self.events.append((model, values, now))

    heard = [Heard(), Heard()]
    both = Observers(heard)
    both.expects(MODEL, KNOWN)
    both.sampled(MODEL, {"size": 2.0}, NOW)
    for one in heard:
        assert one.events == [(MODEL, KNOWN), (MODEL, {"size": 2.0}, NOW)]

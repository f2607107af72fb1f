"""Threads on the CPUs of workers whose engines are idle."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from convserve_server.host import engine_activity, spare_cpus
from convserve_server.host.engine_activity import EngineActivity, create
from convserve_server.host.spare_cpus import SpareCpus

PATIENCE_S = 60.0
NONE: frozenset[int] = frozenset()


@pytest.fixture
def engines() -> Iterator[int]:
    descriptor = create(3)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def workers(engines: int) -> list[EngineActivity]:
    return [EngineActivity(engines, index) for index in range(3)]


@dataclass
class Clock:
    """Stands in for the module time."""

    passed: float = 0.0
    used: float = 0.0

    def monotonic(self) -> float:
        return self.passed

    def process_time(self) -> float:
        return self.used


class Held:
    """Work that waits until the test lets it go, and then says whether there is more."""

    def __init__(self) -> None:
        self._began: queue.Queue[None] = queue.Queue()
        self._verdicts: queue.Queue[bool | Exception] = queue.Queue()

    def __call__(self) -> bool:
        self._began.put(None)
        verdict = self._verdicts.get(timeout=PATIENCE_S)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    def began(self) -> None:
        self._began.get(timeout=PATIENCE_S)

    def end(self, verdict: bool | Exception = False) -> None:
        self._verdicts.put(verdict)


def test_idle_engines_of_others_are_counted(
    workers: list[EngineActivity], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 10 * engine_activity._IDLE_NS
    monkeypatch.setattr(engine_activity, "time", SimpleNamespace(monotonic_ns=lambda: now))
    first, second, third = workers
    assert first.idle_others() == 2
    first.begin()
    assert first.idle_others() == 2
    second.begin()
    assert (first.idle_others(), third.idle_others()) == (1, 0)
    # On the CPU of a third.
    second.begin()
    assert first.idle_others() == 0
    second.end()
    second.end()
    assert first.idle_others() == 1, "one between two batches is not idle"
    now += engine_activity._IDLE_NS
    assert first.idle_others() == 2


def test_work_runs_on_as_many_cpus_as_are_spare(workers: list[EngineActivity]) -> None:
    spare = SpareCpus(workers[0], NONE, 3)
    works = [Held(), Held()]
    assert all(spare.run(work) for work in works)
    for work in works:
        work.began()
    assert not spare.run(Held())
    for work in works:
        work.end()


def test_work_does_not_run_beside_engines_at_work(workers: list[EngineActivity]) -> None:
    workers[1].begin()
    workers[2].begin()
    assert not SpareCpus(workers[0], NONE, 3).run(Held())


def test_more_work_is_done_only_while_a_cpu_is_spare(
    workers: list[EngineActivity], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = iter((1, 1, 0))
    last_asked = threading.Event()

    def idle_others() -> int:
        left = next(idle)
        if not left:
            last_asked.set()
        return left

    monkeypatch.setattr(workers[0], "idle_others", idle_others)
    spare, work = SpareCpus(workers[0], NONE, 2), Held()
    assert spare.run(work)
    for _ in range(2):
        work.began()
        work.end(True)
    assert last_asked.wait(PATIENCE_S)
    monkeypatch.undo()
    other = Held()
    _run_when_free(spare, other)
    # Had the thread gone on with the first, it would wait for that.
    other.began()
    other.end()


def test_work_that_fails_leaves_the_cpu_to_others(
    workers: list[EngineActivity], caplog: pytest.LogCaptureFixture
) -> None:
    spare = SpareCpus(workers[0], NONE, 2)
    work, other = Held(), Held()
    assert spare.run(work)
    work.end(ValueError("of the test"))
    _run_when_free(spare, other)
    other.began()
    other.end()
    assert "work on a spare CPU failed" in caplog.text


def test_threads_run_on_the_cpus_of_others(workers: list[EngineActivity]) -> None:
    cpu = frozenset({max(os.sched_getaffinity(0))})
    before = os.sched_getaffinity(0)
    found: queue.Queue[set[int]] = queue.Queue()

    def work() -> bool:
        found.put(os.sched_getaffinity(0))
        return False

    assert SpareCpus(workers[0], cpu, 2).run(work)
    assert found.get(timeout=PATIENCE_S) == cpu
    assert os.sched_getaffinity(0) == before


def test_thread_that_was_put_elsewhere_runs_on_the_cpus_of_others_again(
    workers: list[EngineActivity],
) -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("there is one CPU")
    spare = SpareCpus(workers[0], frozenset({max(before)}), 2)
    found: queue.Queue[tuple[int, set[int]]] = queue.Queue()

    def work() -> bool:
        found.put((threading.get_native_id(), os.sched_getaffinity(0)))
        return False

    _run_when_free(spare, work)
    thread, _ = found.get(timeout=PATIENCE_S)
    # As settle() does if it finds the thread before that is on the CPUs of others.
    os.sched_setaffinity(thread, {min(before)})
    _run_when_free(spare, work)
    assert found.get(timeout=PATIENCE_S) == (thread, {max(before)})


def test_threads_use_cpus_of_others_while_their_own_is_full(
    workers: list[EngineActivity], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.sched_getaffinity(0)
    cpus = sorted(before)
    if len(cpus) < 2:
        pytest.skip("there is one CPU")
    own, others = {cpus[0]}, frozenset(cpus[1:2])
    clock = Clock()
    monkeypatch.setattr(spare_cpus, "time", clock)
    os.sched_setaffinity(0, own)
    try:
        spare = SpareCpus(workers[0], others, 2)

        def settled(share: float, asked: bool = True) -> set[int]:
            if asked:
                spare.run(lambda: False)
            clock.passed += 1.0
            clock.used += share
            spare.settle()
            return os.sched_getaffinity(0)

        assert settled(0.5) == own
        assert settled(1.2) == own | others
        assert settled(1.2) == own | others
        assert settled(0.5) == own
        # A caller who waits for each answer fills a CPU, and has no work for another.
        assert settled(1.2, asked=False) == own
        assert settled(1.2) == own | others
        assert settled(1.2, asked=False) == own
        assert settled(1.2) == own | others
        for worker in workers[1:]:
            worker.begin()
        assert settled(1.2) == own
    finally:
        os.sched_setaffinity(0, before)


def _run_when_free(spare: SpareCpus, work: Callable[[], bool]) -> None:
    """Runs work as soon as the thread has ended what it did before; nothing reports that."""
    end = time.monotonic() + PATIENCE_S
    while not spare.run(work):
        assert time.monotonic() < end, "the CPU stays taken"

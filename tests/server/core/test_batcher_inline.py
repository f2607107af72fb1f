"""A lone caller's request runs on the thread that submits it, if that is quick."""

import threading
import time
from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest

from convserve_server.core import batcher as batcher_module
from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batcher import Batcher
from convserve_server.core.errors import DeadlinePassed, InternalFault, ServeError
from convserve_server.engines.base import Pixels, Probabilities

PATIENCE_S = 60.0


class Engine:
    """Remembers the thread of each run; waits while it is held, fails while it is broken."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.fault: Exception | None = None

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        self.threads.append(threading.current_thread())
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return np.concatenate(images).reshape(-1, 1).astype(np.float32)


class Bench:
    """A batcher whose engine has run once, so that its cost is known."""

    def __init__(self, *, max_batch: int = 4, max_delay_s: float = 0.0, parallel: int = 1) -> None:
        self.engine = Engine()
        self.batcher = Batcher(
            self.engine.run,
            max_batch=max_batch,
            max_queue=100,
            max_delay_s=max_delay_s,
            parallel=parallel,
        )
        self.ask(0, idle_caller=False)
        self.engine.threads.clear()

    def send(
        self, *values: int, idle_caller: bool, deadline: float | None = None
    ) -> "list[Answer | ServeError]":
        """Submit images of one pixel; the outcome appears in the list."""
        outcomes: list[Answer | ServeError] = []
        pixels = np.array(values, np.uint8).reshape(-1, 1, 1, 1)
        self._done = threading.Event()

        def done(outcome: Answer | ServeError, over: threading.Event = self._done) -> None:
            outcomes.append(outcome)
            over.set()

        self.batcher.submit(BatchRequest(pixels, deadline, done), idle_caller=idle_caller)
        return outcomes

    def ask(
        self, *values: int, idle_caller: bool, deadline: float | None = None
    ) -> Answer | ServeError:
        """Submit, and wait for the outcome."""
        outcomes = self.send(*values, idle_caller=idle_caller, deadline=deadline)
        assert self._done.wait(PATIENCE_S)
        (outcome,) = outcomes
        return outcome


@pytest.fixture(autouse=True)
def _any_cost_is_short() -> object:
    """Whatever this machine does meanwhile, the engines here count as quick."""
    with mock.patch.object(batcher_module, "_MAX_INLINE_S", PATIENCE_S):
        yield


def values_of(outcome: Answer | ServeError) -> list[float]:
    assert isinstance(outcome, Answer), outcome
    return [float(value) for value in outcome.rows[:, 0]]


def test_lone_request_runs_on_the_submitting_thread() -> None:
    bench = Bench()
    assert values_of(bench.ask(7, 8, idle_caller=True)) == [7, 8]
    assert bench.engine.threads == [threading.current_thread()]


def test_request_that_is_not_of_an_only_caller_runs_on_the_batchers_thread() -> None:
    bench = Bench()
    assert values_of(bench.ask(7, idle_caller=False)) == [7]
    assert bench.engine.threads != [threading.current_thread()]


def test_first_request_of_all_runs_on_the_batchers_thread_for_its_cost_is_not_known() -> None:
    engine = Engine()
    batcher = Batcher(engine.run, max_batch=4, max_queue=100)
    over = threading.Event()
    pixels = np.zeros((1, 1, 1, 1), np.uint8)
    batcher.submit(BatchRequest(pixels, None, lambda _: over.set()), idle_caller=True)
    assert over.wait(PATIENCE_S)
    assert engine.threads != [threading.current_thread()]


def test_costly_request_runs_on_the_batchers_thread() -> None:
    bench = Bench()
    with mock.patch.object(batcher_module, "_MAX_INLINE_S", 0.0):
        assert values_of(bench.ask(7, idle_caller=True)) == [7]
    assert bench.engine.threads != [threading.current_thread()]


def test_request_over_a_batch_runs_on_the_batchers_thread() -> None:
    bench = Bench(max_batch=2)
    assert values_of(bench.ask(1, 2, 3, idle_caller=True)) == [1, 2, 3]
    assert threading.current_thread() not in bench.engine.threads


def test_expired_lone_request_costs_no_compute() -> None:
    bench = Bench()
    outcome = bench.ask(7, idle_caller=True, deadline=time.monotonic())
    assert isinstance(outcome, DeadlinePassed)
    assert bench.engine.threads == []


def test_with_a_maximum_delay_no_request_is_run_at_once() -> None:
    bench = Bench(max_delay_s=0.001)
    assert values_of(bench.ask(7, idle_caller=True)) == [7]
    assert bench.engine.threads != [threading.current_thread()]


def test_lone_request_while_the_engine_is_busy_is_queued() -> None:
    bench = Bench()
    bench.engine.entered = threading.Semaphore(0)
    bench.engine.gate.clear()
    first = bench.send(1, idle_caller=False)
    assert bench.engine.entered.acquire(timeout=PATIENCE_S)
    second = bench.send(2, idle_caller=True)
    assert bench.batcher.waiting == 1
    bench.engine.gate.set()
    assert bench._done.wait(PATIENCE_S)
    assert [values_of(first[0]), values_of(second[0])] == [[1], [2]]
    assert threading.current_thread() not in bench.engine.threads


def test_request_during_a_lone_run_waits_for_it() -> None:
    bench = Bench()
    bench.engine.entered = threading.Semaphore(0)
    bench.engine.gate.clear()
    lone = threading.Thread(target=bench.ask, args=(1,), kwargs={"idle_caller": True})
    lone.start()
    assert bench.engine.entered.acquire(timeout=PATIENCE_S)
    outcomes = bench.send(2, idle_caller=False)
    # The batcher's thread must not enter the engine too.
    assert not bench.engine.entered.acquire(timeout=0.05)
    bench.engine.gate.set()
    lone.join(PATIENCE_S)
    assert bench._done.wait(PATIENCE_S)
    assert values_of(outcomes[0]) == [2]
    assert len(bench.engine.threads) == 2


def test_fault_in_a_lone_run_is_internal_and_the_next_is_served() -> None:
    bench = Bench()
    bench.engine.fault = ZeroDivisionError()
    assert isinstance(bench.ask(1, idle_caller=True), InternalFault)
    bench.engine.fault = None
    assert values_of(bench.ask(2, idle_caller=True)) == [2]


def test_lone_request_wakes_no_thread() -> None:
    bench = Bench()
    changed = bench.batcher._changed
    with mock.patch.object(changed, "notify", wraps=changed.notify) as notify:
        assert values_of(bench.ask(7, idle_caller=True)) == [7]
        assert notify.mock_calls == []
        assert values_of(bench.ask(8, idle_caller=False)) == [8]
        assert notify.mock_calls != []


@pytest.mark.parametrize("parallel", [1, 2])
def test_close_during_a_lone_run_ends_after_it(parallel: int) -> None:
    bench = Bench(parallel=parallel)
    bench.engine.entered = threading.Semaphore(0)
    bench.engine.gate.clear()
    lone = threading.Thread(target=bench.ask, args=(1,), kwargs={"idle_caller": True})
    lone.start()
    assert bench.engine.entered.acquire(timeout=PATIENCE_S)
    bench.batcher.close()
    assert not bench.batcher.join(0.05)
    bench.engine.gate.set()
    lone.join(PATIENCE_S)
    assert bench.batcher.join(PATIENCE_S)

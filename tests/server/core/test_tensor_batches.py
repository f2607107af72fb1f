"""Requests with tensors in the batcher: who shares a batch, and whom a fault concerns."""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batcher import Batcher
from convserve_server.core.errors import Cancelled, InternalFault, InvalidRequest, QueueFull
from convserve_server.engines.base import InputsRefused
from convserve_server.engines.tensors import Tensors
from tests.server.gated_engine import PATIENCE_S

Values = list[list[float]]


class Engine:
    """Doubles rows, keeps what it was given, and fails for the values that have faults."""

    def __init__(self) -> None:
        self.batches: list[list[Values]] = []
        self.entered: queue.Queue[None] = queue.Queue()
        self.gate = threading.Event()
        self.gate.set()
        self.faults: dict[float, Exception] = {}
        self.missing = 0

    def run(self, parts: Sequence[Tensors]) -> Tensors:
        self.batches.append([part.arrays[0].tolist() for part in parts])
        self.entered.put(None)
        assert self.gate.wait(PATIENCE_S)
        whole = Tensors.joined(parts)
        for value, fault in self.faults.items():
            if value in whole.arrays[0]:
                raise fault
        return Tensors(tuple(2 * one for one in whole.arrays), len(whole) - self.missing)


class Call:
    """One request and its outcome."""

    def __init__(self, values: Values, connection: str = "") -> None:
        self._outcomes: queue.Queue[object] = queue.Queue()
        self.then: Callable[[], object] = lambda: None
        array = np.array(values, np.float32)
        whole = np.where(np.isfinite(array), array, 0).astype(np.int64)
        self.request = BatchRequest(
            Tensors((array, whole), len(array)),
            None,
            self._done,
            connection,
        )

    def _done(self, outcome: object) -> None:
        self._outcomes.put(outcome)
        self.then()

    def outcome(self) -> object:
        return self._outcomes.get(timeout=PATIENCE_S)

    def rows(self) -> Values:
        answer = self.outcome()
        assert isinstance(answer, Answer), answer
        assert isinstance(answer.outputs, Tensors)
        first, second = answer.outputs.arrays
        assert [one.dtype for one in (first, second)] == [np.dtype("f4"), np.dtype("i8")]
        values: Values = first.tolist()
        assert second.tolist() == values
        return values


Run = Callable[..., list[Call]]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher]:
    batcher = Batcher(
        engine.run, max_batch=4, max_queue=100, max_bytes=1000, tensors=True, name="model any/1"
    )
    yield batcher
    engine.gate.set()
    batcher.close()
    assert batcher.join(PATIENCE_S)


@pytest.fixture
def together(engine: Engine, batcher: Batcher) -> Run:
    """Submits requests that wait for the engine at the same time."""

    def run(*calls: Call) -> list[Call]:
        first = Call([[50]])
        engine.gate.clear()
        batcher.submit(first.request)
        engine.entered.get(timeout=PATIENCE_S)
        for call in calls:
            batcher.submit(call.request)
        engine.batches.clear()
        engine.gate.set()
        assert first.rows() == [[100]]
        return list(calls)

    return run


def test_only_requests_with_equal_sizes_share_a_batch(engine: Engine, together: Run) -> None:
    one, two, wide, three = together(
        Call([[1]]), Call([[2], [3]]), Call([[4, 5]]), Call([[6]], "other")
    )
    assert [call.rows() for call in (one, two, wide, three)] == [
        [[2]], [[4], [6]], [[8, 10]], [[12]],
    ]  # fmt: skip
    assert sorted(map(len, engine.batches)) == [1, 3]
    assert [[[4, 5]]] in engine.batches


def test_request_that_is_larger_than_a_batch_is_put_together(together: Run) -> None:
    [call] = together(Call([[n] for n in range(10)]))
    assert call.rows() == [[2 * n] for n in range(10)]


def test_values_that_cannot_be_computed_fail_alone(
    engine: Engine, together: Run, caplog: pytest.LogCaptureFixture
) -> None:
    engine.faults[2] = InputsRefused("index 2 out of range " + "!" * 5000)
    good, bad, other = together(Call([[1]]), Call([[2]]), Call([[3]]))
    assert good.rows() == [[2]]
    assert other.rows() == [[6]]
    error = bad.outcome()
    assert isinstance(error, InvalidRequest)
    assert error.field == "inputs"
    assert error.problem.startswith("expected values that the model can compute, got index 2 out")
    assert len(error.problem) <= 1024
    assert engine.batches == [[[[1]], [[2]], [[3]]], [[[1]]], [[[2]]], [[[3]]]]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_fault_of_ours_is_that_of_those_who_have_it_alone(engine: Engine, together: Run) -> None:
    engine.faults[2] = MemoryError("no memory")
    good, bad = together(Call([[1]]), Call([[2]]))
    assert good.rows() == [[2]]
    assert isinstance(bad.outcome(), InternalFault)


def test_rows_that_are_missing_are_a_fault_of_ours(
    engine: Engine, batcher: Batcher, caplog: pytest.LogCaptureFixture
) -> None:
    engine.missing = 1
    call = Call([[1], [2]])
    batcher.submit(call.request)
    assert isinstance(call.outcome(), InternalFault)
    assert "the engine gave 1 rows for 2" in caplog.text


def test_values_that_are_not_finite_are_answers_like_any(batcher: Batcher) -> None:
    call = Call([[float("inf")]])
    batcher.submit(call.request)
    answer = call.outcome()
    assert isinstance(answer, Answer)
    assert isinstance(answer.outputs, Tensors)
    assert np.isinf(answer.outputs.arrays[0]).all()
    assert not answer.damaged


def test_bytes_of_all_that_is_not_finished_are_limited(engine: Engine, batcher: Batcher) -> None:
    engine.gate.clear()
    wide = [[0.0] * 40] * 2  # 960 bytes: 12 for each number
    batcher.submit(Call(wide).request)
    engine.entered.get(timeout=PATIENCE_S)
    batcher.submit(Call([[1]]).request)
    with pytest.raises(QueueFull, match=r"972 bytes wait, 960 more exceed the limit of 1000"):
        batcher.submit(Call(wide).request)


def test_request_that_was_cancelled_meanwhile_is_not_run_again(
    engine: Engine, batcher: Batcher, together: Run
) -> None:
    engine.faults[2] = InputsRefused("no")
    calls = [Call([[1]]), Call([[2]]), Call([[3]])]
    # The first is answered before the others are run again.
    calls[0].then = lambda: batcher.cancel(calls[2].request)
    together(*calls)
    assert calls[0].rows() == [[2]]
    assert isinstance(calls[1].outcome(), InvalidRequest)
    assert isinstance(calls[2].outcome(), Cancelled)
    assert [[[3]]] not in engine.batches

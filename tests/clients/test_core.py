"""The decisions of a call, driven by hand: no server, no thread, no event loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve import ModelNotFound, ServerBusy
from convserve.call_set import CallSet
from convserve.core import ClientCore
from convserve.results import Classification
from convserve.steps import BlockingWork, UnaryCall
from convserve_protos import classifier_pb2
from tests.clients.scripted_server import answer, expected_label, model

DIGITS = np.random.default_rng(3).integers(0, 256, (5, 28, 28), np.uint8)
MODELS = classifier_pb2.ListModelsResponse(models=[model("mnist")])


class Core(ClientCore):
    def _init_io(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVSERVE_MODEL", raising=False)


def last(flow: Any, result: object) -> Classification:
    with pytest.raises(StopIteration) as done:
        flow.send(result)
    value: Classification = done.value.value
    return value


def test_named_model_takes_one_call() -> None:
    flow = Core("a:1", model="mnist")._classify(DIGITS[0], None, None, None, None, None)
    step = next(flow)
    assert isinstance(step, UnaryCall)
    assert step.request.model == "mnist"
    assert last(flow, answer(step.request)).label == expected_label(DIGITS[0])


def test_model_that_is_not_named_is_looked_up_once() -> None:
    core = Core("a:1")
    flow = core._classify(DIGITS[0], None, None, None, None, None)
    step = next(flow)
    assert isinstance(step, UnaryCall)
    assert isinstance(step.request, classifier_pb2.ListModelsRequest)
    step = flow.send(MODELS)
    assert isinstance(step, UnaryCall)
    assert step.request.model == "mnist"
    step = next(core._classify(DIGITS[0], None, None, None, None, None))
    assert isinstance(step, UnaryCall)
    assert isinstance(step.request, classifier_pb2.ClassifyRequest)


def test_model_that_is_gone_is_looked_up_again() -> None:
    core = Core("a:1")
    flow = core._classify(DIGITS[0], None, None, None, None, None)
    next(flow)
    flow.send(MODELS)
    with (
        pytest.raises(ModelNotFound),
        core._translated(core._deadline(None), lambda: 0),
    ):
        flow.throw(ModelNotFound("gone"))
    step = next(core._classify(DIGITS[0], None, None, None, None, None))
    assert isinstance(step, UnaryCall)
    assert isinstance(step.request, classifier_pb2.ListModelsRequest)


def test_calls_of_a_large_request_are_due_as_others_are_answered() -> None:
    core = Core("a:1", model="mnist", max_images_per_call=1, max_in_flight=2)
    flow = core._classify(DIGITS, None, None, None, None, None)
    step = next(flow)
    assert isinstance(step, CallSet)
    open_calls = dict(step.due())
    assert sorted(open_calls) == [0, 1]
    assert dict(step.due()) == {}
    order = []
    while (replies := step.replies()) is None:
        number = max(open_calls)  # In another order than they were started.
        order.append(number)
        step.finish(number, answer(open_calls.pop(number)))
        open_calls |= dict(step.due())
        assert len(open_calls) <= 2
    assert order != sorted(order)
    labels = [one.label for one in last(flow, replies)]
    assert labels == [expected_label(digit) for digit in DIGITS]


def test_error_of_a_step_ends_the_flow() -> None:
    flow = Core("a:1", model="mnist")._classify(DIGITS[0], None, None, None, None, None)
    next(flow)
    with pytest.raises(ServerBusy):
        flow.throw(ServerBusy("full"))


def test_all_steps_of_a_call_have_one_deadline() -> None:
    flow = Core("a:1")._classify(DIGITS[0], None, None, None, 7.0, None)
    listing = next(flow)
    classify = flow.send(MODELS)
    assert isinstance(listing, UnaryCall)
    assert isinstance(classify, UnaryCall)
    assert listing.deadline is classify.deadline
    assert classify.deadline.timeout_s == 7.0


def test_bytes_need_no_blocking_work_and_paths_do() -> None:
    core = Core("a:1", model="mnist")
    assert isinstance(next(core._classify_images(b"file", None, None, None, None, None)), UnaryCall)
    step = next(core._classify_images(Path("none.png"), None, None, None, None, None))
    assert isinstance(step, BlockingWork)
    with pytest.raises(FileNotFoundError):
        step.run()

"""What a model gives out is bounded, before it is computed where its sizes are known."""

from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.descriptions import ModelDescription
from convserve_server.engines.signatures import OPEN, TensorSpec
from convserve_server.engines.tensors import Tensors
from convserve_server.protocols.base import Failure
from convserve_server.protocols.grpc_errors import failure_status
from convserve_server.protocols.open_inference.service import MODEL_INFER, OpenInference
from convserve_server.protocols.router import Router
from convserve_server.protocols.streams import StreamBudget
from tests.server.in_process_transport import InProcessTransport
from tests.server.open_inference_core import FakeCore, bundle, description
from tests.server.protocols.test_open_inference_infer import infer, pixels, tensor

#: Of an answer, bytes.
MOST = 4000
#: A row of the first output is this many bytes.
ROW = 1000


def model(*, batched: bool = True, size: int = ROW // 4) -> ModelDescription:
    """A model with a large output, and a small one."""
    first = OPEN if batched else 1
    return description(
        "any",
        [TensorSpec("x", "UINT8", (first, 1))],
        [TensorSpec("large", "FP32", (first, size)), TensorSpec("small", "UINT8", (first, 1))],
        batched=batched,
    )


def ask(core: Any, request: pb.ModelInferRequest) -> bytes | Failure:
    transport = InProcessTransport()
    transport.start(Router([OpenInference(core, StreamBudget(2**20), max_answer_bytes=MOST)]))
    return transport.ask(MODEL_INFER, request.SerializeToString()).result(timeout=60.0)


def request_for(rows: int, *names: str) -> pb.ModelInferRequest:
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]
    return infer(
        tensor(shape=(rows, 1), name="x"), raw=[bytes(rows)], model_name="any", outputs=outputs
    )


def given(rows: int, size: int = ROW // 4) -> Tensors:
    return Tensors((np.zeros((rows, size), np.float32), np.zeros((rows, 1), np.uint8)), rows)


def assert_too_large(outcome: bytes | Failure, size: int) -> None:
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.reason) == (code_pb2.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
    assert outcome.message == (
        f"outputs: expected an answer of at most {MOST} bytes (max_answer_bytes), got {size}; "
        "ask for fewer rows or outputs"
    )
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in failure_status(outcome).details)
    assert info.metadata["limit_bytes"] == str(MOST)


@pytest.mark.parametrize("rows", [3, 4, 8])
def test_answer_of_sizes_that_are_known_is_refused_before_it_is_computed(rows: int) -> None:
    core = FakeCore(model())
    core.run = lambda inputs: given(inputs.count)
    outcome = ask(core, request_for(rows))
    if rows * (ROW + 1) <= MOST:
        assert isinstance(outcome, bytes)
    else:
        assert_too_large(outcome, rows * (ROW + 1))
    assert len(core.inputs) == (rows == 3)


def test_only_the_outputs_that_are_asked_for_count() -> None:
    core = FakeCore(model())
    core.run = lambda inputs: given(inputs.count)
    assert isinstance(ask(core, request_for(4, "large")), bytes)
    assert isinstance(ask(core, request_for(8, "small")), bytes)
    classes = request_for(8, "large")
    classes.outputs[0].parameters["classification"].int64_param = 2
    assert isinstance(ask(core, classes), bytes)


@pytest.mark.parametrize("batched", [True, False])
def test_answer_of_sizes_that_vary_is_refused_once_it_is_computed(batched: bool) -> None:
    core = FakeCore(model(batched=batched, size=OPEN))
    core.run = lambda inputs: given(1, 999)
    assert isinstance(ask(core, request_for(1)), bytes)
    core.run = lambda inputs: given(1, 1000)
    assert_too_large(ask(core, request_for(1)), 4001)


def test_answers_of_bundles_are_not_counted() -> None:
    core = FakeCore(bundle())
    core.run = lambda inputs: np.zeros((8, 10_000), np.float32)
    request = infer(tensor(shape=(8, 28, 28, 1)), raw=[pixels(8)])
    assert isinstance(ask(core, request), bytes)

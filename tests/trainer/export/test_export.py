from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from convserve_bundle.errors import BundleError
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets import mnist
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.datasets.pictures import Batch, Pixels
from convserve_trainer.errors import ExportError, ParityError
from convserve_trainer.evaluation import predict
from convserve_trainer.evaluation.predict import Answers, Probabilities
from convserve_trainer.export import contract, parity
from convserve_trainer.export.parity import Reference
from tests.trainer.conftest import Published


@pytest.fixture
def model(published: Published) -> onnx.ModelProto:
    return bundle.read(published.bundle)[0]


def test_exported_graph_keeps_the_contract(model: onnx.ModelProto) -> None:
    assert [contract.describe(value) for value in model.graph.input] == [
        "pixels: uint8 [N, 28, 28, 1]"
    ]
    assert [contract.describe(value) for value in model.graph.output] == [
        "probabilities: float32 [N, 10]"
    ]
    operators = contract.operators(model)
    assert not {"Shape", "Gather", "Slice", "Concat"} & set(operators)
    assert operators.count("Cast") == operators.count("Mul") == 1
    assert operators[:3] == ["Reshape", "Cast", "Mul"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 15)]
    assert model.ir_version == 8


def test_scale_in_the_graph_is_one_over_255(model: onnx.ModelProto) -> None:
    scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    [multiply] = [node for node in model.graph.node if node.op_type == "Mul"]
    [scale] = [scales[name] for name in multiply.input if name in scales]
    assert scale == np.float32(1 / 255)


def _shape_node(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Shape", ["pixels"], ["shape"]))


def _other_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"


def _float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def _fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "Identity:0"


def _missing_node(model: onnx.ModelProto) -> None:
    del model.graph.node[5]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_shape_node, "the exported graph still has Shape"),
        (_other_input, r"input \['image: uint8 .*expected pixels: uint8"),
        (_float_input, r"input \['pixels: float32 .*expected pixels: uint8"),
        (_fixed_batch, r"input \['pixels: uint8 \[1, .*expected pixels: uint8 \[N, H, W, C\]"),
        (_other_output, r"output \['Identity:0: .*expected probabilities"),
        (_missing_node, "the exported graph is not valid ONNX"),
    ],
)
def test_graph_that_breaks_the_contract_is_refused(
    model: onnx.ModelProto, spoil: Callable[[onnx.ModelProto], None], message: str
) -> None:
    contract.check(model)
    spoil(model)
    with pytest.raises(ExportError, match=message):
        contract.check(model)


class _Keras:
    """Says what the published bundle says; replaces the net it was made of."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = predict.session(model.SerializeToString())

    def predict_on_batch(self, images: Pixels) -> Probabilities:
        return predict.by_onnxruntime(self._session, images)


class _Fixed:
    def __init__(self, answers: Probabilities) -> None:
        self._answers = answers

    def predict_on_batch(self, images: Pixels) -> Probabilities:
        return self._answers[: len(images)]


def _reference(net: "_Keras | _Fixed", batches: list[Batch]) -> Reference:
    rows = [net.predict_on_batch(pixels) for pixels, _ in batches]
    return Reference(
        "Keras", Answers(np.concatenate(rows), np.concatenate([x for _, x in batches]))
    )


def _batches(dataset: Dataset, count: int = 1_000) -> list[Batch]:
    return list(mnist.make_data(dataset).held_out.batches(range(count), 50))


def test_parity_of_the_same_net_holds(
    model: onnx.ModelProto, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    ask = predict.by_onnxruntime

    def asked(session: Any, images: Pixels, size: int) -> Probabilities:
        sizes.append(size)
        return ask(session, images, size)

    expected = _Keras(model)
    monkeypatch.setattr(predict, "by_onnxruntime", asked)
    monkeypatch.setattr(_Keras, "predict_on_batch", lambda self, x: ask(self._session, x))
    batches = _batches(dataset, 1_100)
    compared = parity.check([parity.Candidate(model)], _reference(expected, batches), batches)
    assert compared.largest <= 1e-6
    assert compared.reference.total == compared.onnxruntime.total == 1_100
    assert compared.reference.correct == compared.onnxruntime.correct > 500
    assert (sizes.count(1), sizes.count(7), sizes.count(50)) == (20, 20, 22)


def test_parity_of_a_perturbed_weight_is_refused(model: onnx.ModelProto, dataset: Dataset) -> None:
    expected = _Keras(model)
    [kernel] = [tensor for tensor in model.graph.initializer if tuple(tensor.dims) == (32, 1, 3, 3)]
    perturbed = onnx.numpy_helper.to_array(kernel).copy()
    perturbed[0] += 1e-3
    kernel.CopyFrom(onnx.numpy_helper.from_array(perturbed, kernel.name))
    batches = _batches(dataset)
    with pytest.raises(
        ParityError, match=r"differs from Keras by \d.*e-\d\d \(expected at most 1e-05"
    ):
        parity.check([parity.Candidate(model)], _reference(expected, batches), batches)


def test_parity_sees_one_other_arg_max_within_the_tolerance(
    model: onnx.ModelProto, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.full((50, 10), 0.1, dtype=np.float32)
    expected[:, 3] += 2e-6
    found = expected.copy()
    found[42, 4] += 4e-6
    monkeypatch.setattr(predict, "by_onnxruntime", lambda *_: found)
    batches = _batches(dataset)
    with pytest.raises(ParityError, match="and in 1 of 50 arg-max, in batches of 1$"):
        parity.check([parity.Candidate(model)], _reference(_Fixed(expected), batches), batches)


def test_parity_refuses_what_is_no_number(model: onnx.ModelProto, dataset: Dataset) -> None:
    expected = _Fixed(np.full((50, 10), np.nan, dtype=np.float32))
    batches = _batches(dataset)
    with pytest.raises(ParityError, match="by nan"):
        parity.check([parity.Candidate(model)], _reference(expected, batches), batches)


def test_session_of_no_model_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="ONNX Runtime refuses the model"):
        predict.session(b"no model")

"""Nets in float16 and for TensorFloat-32: the graphs, their bounds, and what is published."""

import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_PHOTO,
    PRECISION_BFLOAT16,
    PRECISION_FLOAT16,
    PRECISION_FLOAT32,
    PRECISION_TENSOR_FLOAT_32,
    PRECISION_UNSPECIFIED,
    InputSpec,
    Precision,
)
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets.pictures import Batch, Pixels
from convserve_trainer.errors import AccuracyError, ExportError, ParityError
from convserve_trainer.evaluation import predict
from convserve_trainer.evaluation.predict import Probabilities
from convserve_trainer.export import (
    contract,
    float16,
    gpu_rounding,
    keras_to_onnx,
    loss,
    parity,
    precisions,
)
from convserve_trainer.export.parity import Reference
from convserve_trainer.main import main
from convserve_trainer.nets import models
from convserve_trainer.recipes import recipe_files
from tests.bundles import SHAPE, model
from tests.trainer.conftest import Published, Small

PHOTO_QUICK = recipe_files.find("quick", "photos")

REDUCED = [PRECISION_TENSOR_FLOAT_32, PRECISION_FLOAT16, PRECISION_BFLOAT16]


def _run(net: onnx.ModelProto, pixels: Pixels) -> Probabilities:
    return predict.by_onnxruntime(predict.session(net.SerializeToString()), pixels)


def _checked(
    candidates: list[parity.Candidate], net: onnx.ModelProto, count: int
) -> parity.Comparison:
    """The comparison with what a net of ONNX says in float32."""
    batches = _batches(count)
    rows = np.concatenate([_run(net, pixels) for pixels, _ in batches])
    labels = np.concatenate([each for _, each in batches])
    return parity.check(candidates, Reference("Keras", predict.Answers(rows, labels)), batches)


def _random_net(scale: float) -> onnx.ModelProto:
    """A net whose logits are sums of 784 products; the larger the scale, the larger they are."""
    net = model({})
    [weights] = [tensor for tensor in net.graph.initializer if tensor.name == "weights"]
    drawn = np.random.default_rng(1).normal(scale=scale, size=weights.dims).astype(np.float32)
    weights.CopyFrom(onnx.numpy_helper.from_array(drawn, "weights"))
    return net


def _batches(count: int) -> list[Batch]:
    pixels = np.random.default_rng(2).integers(0, 256, (count, *SHAPE), np.uint8)
    labels = np.zeros(50, np.int64)
    return [(pixels[start : start + 50], labels) for start in range(0, count, 50)]


def test_unspecified_precision_is_float32() -> None:
    assert precisions.read_precision(PRECISION_UNSPECIFIED) == PRECISION_FLOAT32
    names = [precisions.name(number) for number in Precision.values()]
    assert names == ["float32", "float32", "tf32", "float16", "int8", "bfloat16"]


def test_every_precision_has_a_name_and_a_bound() -> None:
    known = set(Precision.values()) - {PRECISION_UNSPECIFIED}
    assert set(precisions.NAMES.values()) == set(precisions.BOUNDS) == known


# float16


def _types(net: onnx.ModelProto) -> dict[str, str]:
    """The element type of the constants of each node, by its operator."""
    kinds = {
        tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type)
        for tensor in net.graph.initializer
    }
    return {
        node.op_type: kinds[name] for node in net.graph.node for name in node.input if name in kinds
    }


def test_float16_keeps_the_contract_and_costs_one_cast(published: Published) -> None:
    single = bundle.read(published.bundle)[0]
    before = single.SerializeToString()
    half = float16.convert(single)
    contract.check(half)
    assert single.SerializeToString() == before
    operators = contract.operators(single)
    assert contract.operators(half) == [*operators[:-1], "Cast", operators[-1]]
    assert half.ir_version == contract.IR_VERSION
    assert [(entry.domain, entry.version) for entry in half.opset_import] == [("", contract.OPSET)]
    assert _types(half) == {
        "Mul": "FLOAT16",
        "Conv": "FLOAT16",
        "MatMul": "FLOAT16",
        "Add": "FLOAT16",
        "Reshape": "INT64",
    }
    assert half.ByteSize() < 0.55 * single.ByteSize()


def test_float16_leaves_the_sigmoid_and_its_columns_in_float32() -> None:
    spec = InputSpec(height=64, width=64, channels=3, kind=IMAGE_KIND_PHOTO)
    net = models.with_class_columns(models.build(PHOTO_QUICK, spec, 2, 100))
    single = keras_to_onnx.export(net)
    half = float16.convert(single)
    contract.check(half)
    assert contract.operators(half)[-4:] == ["Cast", "Sigmoid", "Mul", "Add"]
    assert _types(half)["Conv"] == "FLOAT16"
    tail = {name for node in half.graph.node[-2:] for name in node.input}
    constants = [tensor for tensor in half.graph.initializer if tensor.name in tail]
    assert [tensor.data_type for tensor in constants] == [onnx.TensorProto.FLOAT] * 2
    pixels = np.random.default_rng(3).integers(0, 256, (9, 64, 64, 3), np.uint8)
    rows = _run(half, pixels)
    assert rows.shape == (9, 2)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows, _run(single, pixels), atol=1e-2)


@pytest.mark.parametrize("precision", REDUCED)
def test_graph_that_ends_in_no_softmax_is_refused(precision: Precision.ValueType) -> None:
    net = model({})
    net.graph.node[-1].op_type = "LogSoftmax"
    with pytest.raises(ExportError, match="no Softmax or Sigmoid; publish it with float32"):
        parity.candidates(net, precision)


# What a GPU rounds


def _logits(net: onnx.ModelProto, pixels: Pixels) -> NDArray[np.float32]:
    net.graph.output.add(name="logits")
    session = predict.session(net.SerializeToString())
    [found] = session.run(["logits"], {"pixels": pixels})
    rows: NDArray[np.float32] = found
    return rows


def _bits(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    mantissas, exponents = np.frexp(values)
    rounded: NDArray[np.float32] = np.ldexp(np.rint(mantissas * 2**bits) / 2**bits, exponents)
    return rounded


def test_imitated_rounding_is_that_of_the_formats() -> None:
    grey = np.arange(256)
    pixels = np.zeros((256, *SHAPE), np.uint8)
    pixels[:, 0, 4, 0] = grey
    # The model's fifth logit is 20 * grey / 255.
    exact = grey.astype(np.float32) * np.float32(1 / 255)
    net = model({})
    # ONNX Runtime scales the products, not the pixels.
    scaled_last = (20 * grey).astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(_logits(net, pixels)[:, 4], scaled_last)
    rounded = _logits(gpu_rounding.imitated(model({}), PRECISION_TENSOR_FLOAT_32), pixels)
    np.testing.assert_array_equal(rounded[:, 4], 20 * _bits(exact, 11))
    # Each of three is rounded: the scale, the pixel that it is multiplied with, and the product.
    scaled = _bits(grey.astype(np.float32), 8) * _bits(np.array([1 / 255], np.float32), 8)
    rounded = _logits(gpu_rounding.imitated(model({}), PRECISION_BFLOAT16), pixels)
    np.testing.assert_array_equal(rounded[:, 4], 20 * _bits(scaled, 8))
    half = grey.astype(np.float16) * np.float16(1 / 255)
    # The last rounding is that of the softmax's input, which comes after the logits.
    found = _logits(gpu_rounding.imitated(model({}), PRECISION_FLOAT16), pixels)
    np.testing.assert_array_equal(found[:, 4], 20 * half.astype(np.float32))


def test_imitation_rounds_the_factors_of_products_or_all(published: Published) -> None:
    net = bundle.read(published.bundle)[0]
    before = net.SerializeToString()
    plain = contract.operators(net)
    products = sum(plain.count(operator) for operator in gpu_rounding.PRODUCTS)
    assert products == 5
    rounded = contract.operators(gpu_rounding.imitated(net, PRECISION_TENSOR_FLOAT_32))
    assert rounded.count("Sub") == 2 * 2 * products
    assert [name for name in rounded if name not in ("Sub", "Mul")] == [
        name for name in plain if name != "Mul"
    ]
    half = contract.operators(gpu_rounding.imitated(net, PRECISION_FLOAT16))
    assert half.count("Cast") > 2 * 2 * products
    assert [name for name in half if name != "Cast"] == [name for name in plain if name != "Cast"]
    assert net.SerializeToString() == before


# Parity


def test_candidates_are_the_file_first_and_then_the_imitation() -> None:
    net = model({})
    [single] = parity.candidates(net, PRECISION_FLOAT32)
    assert (single.model, single.tolerance) == (net, 1e-5)
    file, imitation = parity.candidates(net, PRECISION_TENSOR_FLOAT_32)
    assert (file.model, file.tolerance) == (net, 1e-5)
    assert imitation.tolerance == 5e-3
    file, imitation = parity.candidates(net, PRECISION_FLOAT16)
    assert (contract.operators(file.model)[-2], file.tolerance) == ("Cast", 1e-2)
    assert imitation.tolerance == 5e-3
    file, imitation = parity.candidates(net, PRECISION_BFLOAT16)
    assert (file.model, file.tolerance, file.costs) == (net, 1e-5, False)
    assert (imitation.tolerance, imitation.costs) == (4e-2, True)


@pytest.mark.parametrize("precision", REDUCED)
def test_net_within_the_bound_passes_and_says_how_far_it_is(
    precision: Precision.ValueType,
) -> None:
    net = _random_net(scale=0.1)
    compared = _checked(parity.candidates(net, precision), net, 500)
    assert 1e-5 < compared.largest <= precisions.BOUNDS[precision] / 2
    assert compared.others <= (20 if precision == PRECISION_BFLOAT16 else 2)


@pytest.mark.parametrize(
    ("precision", "what"),
    [
        (PRECISION_TENSOR_FLOAT_32, "tf32, with the rounding of a GPU imitated,"),
        (PRECISION_FLOAT16, "ONNX Runtime in float16"),
        (PRECISION_BFLOAT16, "bfloat16, with the rounding of a CPU imitated,"),
    ],
)
def test_net_beyond_the_bound_is_refused_with_the_remedy(
    precision: Precision.ValueType, what: str
) -> None:
    net = _random_net(scale=20)
    with pytest.raises(ParityError) as caught:
        _checked(parity.candidates(net, precision), net, 1_000)
    assert str(caught.value).startswith(f"{what} differs from Keras by ")
    assert str(caught.value).endswith("; --precision float32 rounds nothing")


def test_weights_that_float16_cannot_hold_are_refused() -> None:
    net = _random_net(scale=1e9)
    with pytest.raises(ParityError, match="float16"):
        _checked(parity.candidates(net, PRECISION_FLOAT16), net, 50)


def test_labels_that_an_imitation_alone_changes_are_counted() -> None:
    net, other = _random_net(scale=0.1), _random_net(scale=0.1)
    other.graph.node.insert(4, onnx.helper.make_node("Neg", ["logits"], ["least"]))
    other.graph.node[-1].input[0] = "least"
    compared = [parity.Candidate(net), parity.Candidate(other, tolerance=1)]
    assert _checked(compared, net, 100).others == 100


def test_answers_that_bfloat16_loses_are_those_of_the_imitation() -> None:
    net, other = _random_net(scale=0.1), _random_net(scale=0.1)
    other.graph.node.insert(4, onnx.helper.make_node("Neg", ["logits"], ["least"]))
    other.graph.node[-1].input[0] = "least"
    rows = np.concatenate([_run(net, pixels) for pixels, _ in _batches(100)])
    labels = rows.argmax(axis=1).astype(np.int64)
    batches: list[Batch] = [
        (pixels, labels[50 * number :][:50]) for number, (pixels, _) in enumerate(_batches(100))
    ]
    answers = predict.Answers(rows, labels)
    compared = [parity.Candidate(net), parity.Candidate(other, tolerance=1, costs=True)]
    comparison = parity.check(compared, Reference("Keras", answers), batches)
    assert (comparison.onnxruntime.correct, comparison.rounded.correct) == (100, 0)
    assert (comparison.changed, comparison.mean > 0) == (100, True)
    with pytest.raises(AccuracyError, match=r"^bfloat16 has 0 of 100 right, float32 100: 100 are "):
        loss.check(comparison, PRECISION_BFLOAT16)


# Publishing


@pytest.mark.usefixtures("undrawn")
def test_float16_that_misses_the_bound_is_not_published_and_resume_can_publish_it(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "models"
    fit = small.fit(folder, "--precision", "float16")
    with monkeypatch.context() as patch:
        patch.setitem(precisions.BOUNDS, PRECISION_FLOAT16, 1.1e-5)
        assert main(fit) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"convserve-train: .*float16.* differs from Keras .*; --precision float32 rounds nothing\n",
        captured.err,
    )
    assert "the trained weights are kept" in captured.out
    assert os.listdir(folder) == [".unfinished"]

    assert main([*fit, "--resume"]) == 0
    output = capsys.readouterr().out
    assert "resumed after epoch 1\n" in output
    assert "(bound of float16 1e-02), other labels " in output
    net, manifest = bundle.read(folder / "small")
    contract.check(net)
    assert manifest.precision == PRECISION_FLOAT16
    assert 1e-5 < manifest.training.parity_max_abs <= 5e-3
    assert manifest.training.parity_bound == 1e-2

    assert main(["inspect", str(folder / "small")]) == 0
    output = capsys.readouterr().out
    assert "precision    float16\n" in output
    assert "PRECISION_FLOAT16\n" in output
    assert main(["evaluate", str(folder / "small"), "--data", str(small.data)]) == 0
    correct = int(manifest.metrics["correct"])
    assert f"({correct:,} of 30 right)\n" in capsys.readouterr().out


def _constants(net: onnx.ModelProto) -> list[bytes]:
    return [onnx.numpy_helper.to_array(tensor).tobytes() for tensor in net.graph.initializer]


@pytest.mark.usefixtures("undrawn")
def test_precision_of_devices_publishes_the_file_of_float32(small: Small, tmp_path: Path) -> None:
    for name in ("float32", "tf32", "bfloat16"):
        assert main(small.fit(tmp_path, "--precision", name)) == 0
    single, plain = bundle.read(tmp_path / "small" / "1")
    for version, precision, bound in (
        ("2", PRECISION_TENSOR_FLOAT_32, 1e-2),
        ("3", PRECISION_BFLOAT16, 8e-2),
    ):
        net, manifest = bundle.read(tmp_path / "small" / version)
        assert manifest.precision == precision
        assert 1e-5 < manifest.training.parity_max_abs <= bound / 2
        assert manifest.training.parity_bound == bound
        assert manifest.metrics == plain.metrics
        assert contract.operators(net) == contract.operators(single)
        # Names count the nets that a process has exported.
        assert _constants(net) == _constants(single)


@pytest.mark.parametrize("given", ["float64", "FLOAT16", ""])
def test_unknown_precision_is_refused_with_those_that_exist(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "digits", "--precision", given])
    assert caught.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "argument --precision: invalid choice" in line
    assert all(name in line for name in precisions.NAMES)

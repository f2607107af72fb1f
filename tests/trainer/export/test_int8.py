"""Nets in int8: the graphs, what they are calibrated on, and what they may cost."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from convserve_protos.bundle_pb2 import PRECISION_INT8
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.datasets.pictures import ArrayPictures, Pixels
from convserve_trainer.errors import AccuracyError, ExportError, ParityError
from convserve_trainer.evaluation import predict
from convserve_trainer.evaluation.predict import Answers, Probabilities
from convserve_trainer.evaluation.score import Score
from convserve_trainer.export import contract, int8, keras_to_onnx, loss, parity
from convserve_trainer.export.parity import Comparison, Reference
from convserve_trainer.nets import keras_backend
from tests.bundles import model
from tests.trainer.conftest import Published


def _run(net: onnx.ModelProto, pixels: Pixels) -> Probabilities:
    return predict.by_onnxruntime(predict.session(net.SerializeToString()), pixels)


def _constants(net: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in net.graph.initializer}


@pytest.fixture(scope="module")
def single(published: Published) -> onnx.ModelProto:
    net = bundle.read(published.bundle)[0]
    net.ClearField("metadata_props")
    return net


@pytest.fixture(scope="module")
def quantized(single: onnx.ModelProto, dataset: Dataset) -> onnx.ModelProto:
    return int8.convert(single, np.array_split(dataset.train_images[:128], 8))


# The graph


def test_int8_keeps_the_contract_in_a_third_of_the_file(
    single: onnx.ModelProto, dataset: Dataset
) -> None:
    before = single.SerializeToString()
    net = int8.convert(single, [dataset.train_images[:16]])
    contract.check(net)
    assert single.SerializeToString() == before
    assert net.ByteSize() < len(before) / 3
    assert (net.ir_version, len(net.metadata_props)) == (contract.IR_VERSION, 0)
    assert [(entry.domain, entry.version) for entry in net.opset_import] == [("", contract.OPSET)]


def test_all_but_the_last_layer_and_the_head_is_of_int8(quantized: onnx.ModelProto) -> None:
    constants = _constants(quantized)
    sources = {name: node for node in quantized.graph.node for name in node.output}
    weights = []
    for node in quantized.graph.node:
        if node.op_type in int8.PRODUCTS:
            source = sources.get(node.input[1])
            weights.append(constants[node.input[1] if source is None else source.input[0]])
    assert [str(weight.dtype) for weight in weights] == ["int8"] * 4 + ["float32"]
    assert weights[-1].shape == (64, 10)
    # 7 bits: two products of uint8 and these fit into 16 bits on CPUs without VNNI.
    assert max(np.abs(weight.astype(int)).max() for weight in weights[:-1]) <= 64
    scales = [
        constants[node.input[1]].size
        for node in quantized.graph.node
        if node.op_type == "DequantizeLinear" and constants[node.input[2]].dtype == np.int8
    ]
    assert sorted(scales) == [32, 64, 64, 64]  # one for each channel
    assert contract.operators(quantized)[-2:] == ["Gemm", "Softmax"]


def test_pixels_go_into_the_first_convolution_as_they_are(quantized: onnx.ModelProto) -> None:
    constants = _constants(quantized)
    assert not {"Cast", "Mul"}.intersection(contract.operators(quantized))
    until = contract.operators(quantized).index("Conv")
    seen = [
        (float(constants[node.input[1]]), int(constants[node.input[2]]))
        for node in quantized.graph.node[:until]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and constants[node.input[2]].dtype == np.uint8
    ]
    # Nothing else has rounded them on the way.
    assert set(seen) == {(float(np.float32(1 / 255)), 0)}


def test_int8_answers_nearly_as_float32_does(
    single: onnx.ModelProto, quantized: onnx.ModelProto, dataset: Dataset
) -> None:
    pixels = dataset.test_images[:1_000]
    expected, found = _run(single, pixels), _run(quantized, pixels)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert 1e-5 < np.abs(found - expected).max(axis=1).mean() < loss.MEAN
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98


def test_batch_normalization_sums_and_global_pooling_become_int8() -> None:
    keras = keras_backend.load()
    layers, draw = keras.layers, np.random.default_rng(1)
    pixels = keras.Input((24, 24, 3), dtype="uint8", name="pixels")
    entry = layers.Conv2D(8, 3, padding="same")(layers.Rescaling(1 / 255)(pixels))
    entry = layers.ReLU()(layers.BatchNormalization()(entry))
    branch = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(entry)
    branch = layers.BatchNormalization()(branch)
    short = layers.Conv2D(16, 1, strides=2)(entry)
    top = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([branch, short])))
    net = keras.Model(pixels, layers.Dense(5, activation="softmax")(layers.Dropout(0.5)(top)))
    for weight in net.weights:
        if weight.path.rpartition("/")[2] not in ("kernel", "bias"):
            weight.assign(draw.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith("/kernel"):
            # As He et al. draw them, so that the signal keeps its size.
            deviation = np.sqrt(2 / np.prod(weight.shape[:-1]))
            weight.assign(draw.normal(size=weight.shape) * deviation)
    single = keras_to_onnx.export(net)
    given = (
        draw.integers(0, 256, (64, 24, 24, 3), np.uint8)
        // np.arange(1, 65, dtype=np.uint8)[:, None, None, None]
    )
    made = int8.convert(single, [given[::2]])
    contract.check(made)
    operators = contract.operators(made)
    assert not {"BatchNormalization", "Cast", "Mul"}.intersection(operators)
    # Each is followed by the rounding of what it gives.
    for operator, count in (("Conv", 3), ("Add", 1), ("GlobalAveragePool", 1)):
        nodes = [node for node in made.graph.node if node.op_type == operator]
        assert len(nodes) == count
        for node in nodes:
            users = [user for user in made.graph.node if node.output[0] in user.input]
            assert [user.op_type for user in users] == ["QuantizeLinear"]
    expected, found = _run(single, given), _run(made, given)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert 0 < np.abs(found - expected).max() < 0.05


def test_net_of_which_nothing_would_be_int8_is_refused() -> None:
    with pytest.raises(ExportError, match="no layer that could be int8: .*; publish it with float"):
        int8.convert(model({}), [np.zeros((1, 28, 28, 1), np.uint8)])


# Calibration


def test_sample_is_drawn_from_the_seed_and_no_larger_than_asked() -> None:
    pixels = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    train = ArrayPictures(pixels, np.zeros(100, np.int64))

    def drawn(count: int, seed: int) -> list[int]:
        parts = list(int8.sample(train, count, seed))
        assert max(len(part) for part in parts) <= int8.BATCH
        found: list[int] = np.concatenate(parts).ravel().tolist()
        return found

    assert drawn(40, 1) == drawn(40, 1) != drawn(40, 2)
    assert len(set(drawn(40, 1))) == 40
    assert sorted(drawn(1_000, 1)) == list(range(100))


# What it costs


def _compared(before: int, after: int, total: int, changed: int, mean: float = 0.0) -> Comparison:
    old, new = Score(before, total, 0.1), Score(after, total, 0.1)
    answers = Answers(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    return Comparison(
        old, new, new, 0.25, others=changed, mean=mean, changed=changed, answers=answers
    )


@pytest.mark.parametrize(
    ("total", "changed", "most"),
    [
        (10_000, 9, 20),  # 0.2 %
        (10_000, 400, 40),
        (1_000, 0, 2),
        (1_000, 16, 8),  # two standard deviations of chance
        (15, 1, 2),
    ],
)
def test_lost_answers_are_a_share_or_what_chance_takes(total: int, changed: int, most: int) -> None:
    assert loss.allowed(_compared(total, total, total, changed)) == most
    loss.check(_compared(total, total - most, total, changed))
    with pytest.raises(AccuracyError):
        loss.check(_compared(total, total - most - 1, total, changed))


def test_loss_says_its_numbers_and_what_to_do() -> None:
    with pytest.raises(AccuracyError) as lost:
        loss.check(_compared(9_930, 9_905, 10_000, 31))
    assert str(lost.value) == (
        "int8 has 9,905 of 10,000 right, float32 9,930: 25 are lost, at most 20 may be; nothing "
        "was published: more --calibration-pictures may help; --precision float16 loses less, and "
        "float32 nothing"
    )
    with pytest.raises(ParityError) as off:
        loss.check(_compared(9_930, 9_930, 10_000, 0, mean=0.03))
    assert str(off.value).startswith(
        "int8 differs from float32 by 3.00e-02 in the mean of the pictures (expected at "
        "most 2e-02) and by 2.50e-01 at most; nothing was published: more --calibration-pictures"
    )
    with pytest.raises(ParityError, match="by nan in the mean"):
        loss.check(replace(_compared(1, 1, 1, 0), mean=float("nan")))


def test_comparison_counts_what_changed_and_means_what_the_file_differs() -> None:
    net = model({})
    pixels = np.zeros((4, 28, 28, 1), np.uint8)
    pixels[np.arange(4), 0, np.arange(4), 0] = 255
    answers = _run(net, pixels)
    answers[0], answers[1] = answers[1], answers[0].copy()  # the reference takes each for the other
    labels = np.array([0, 0, 2, 9])  # then the file alone, the reference alone, both, neither
    compared = parity.check(
        [parity.Candidate(net, tolerance=1)],
        Reference("float32", Answers(answers, labels)),
        [(pixels, labels)],
    )
    assert (compared.reference.correct, compared.onnxruntime.correct) == (2, 2)
    assert (compared.changed, compared.others) == (2, 2)
    assert compared.largest > 0.99
    assert compared.mean == pytest.approx(compared.largest / 2, abs=1e-6)


def test_int8_comes_with_the_exact_net_that_must_agree_too(
    single: onnx.ModelProto, dataset: Dataset
) -> None:
    made, exact = parity.candidates(single, PRECISION_INT8, [dataset.train_images[:16]])
    assert "QuantizeLinear" in contract.operators(made.model)
    assert (exact.model, exact.tolerance) == (single, 1e-5)

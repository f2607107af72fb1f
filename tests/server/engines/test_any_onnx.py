"""ONNX files that are not bundles: what is served and how, and what is refused and why."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import ArrayLike, NDArray

from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import hold
from convserve_server.engines.base import EngineError, InputsRefused, LoadedTensorModel
from convserve_server.engines.bundles import load_model
from convserve_server.engines.loader import EngineOptions
from convserve_server.engines.signatures import OPEN, Signature, TensorSpec
from convserve_server.engines.tensors import DTYPES, Tensors
from tests import onnx_models
from tests.bundles import model, write_bundle

OPTIONS = EngineOptions("cpu", max_batch=8)


def load(
    folder: Path, made: onnx.ModelProto, options: EngineOptions = OPTIONS, name: str = "made"
) -> LoadedTensorModel:
    loaded = load_model(onnx_models.write(folder, name, made), options)
    assert isinstance(loaded, LoadedTensorModel)
    return loaded


def request(loaded: LoadedTensorModel, *values: ArrayLike) -> Tensors:
    """The inputs of one request."""
    signature = loaded.engine.signature
    arrays = tuple(
        np.asarray(value, DTYPES[one.datatype])
        for one, value in zip(signature.inputs, values, strict=True)
    )
    return Tensors(arrays, len(arrays[0]) if signature.batched else 1)


def run(loaded: LoadedTensorModel, *values: ArrayLike) -> list[Any]:
    """What the outputs are, as lists."""
    inputs = request(loaded, *values)
    outputs = loaded.engine.run([inputs])
    assert len(outputs) == len(inputs)
    for one, array in zip(loaded.engine.signature.outputs, outputs.arrays, strict=True):
        assert array.dtype == DTYPES[one.datatype]
    return [array.tolist() for array in outputs.arrays]


#: Of each model: whether it is batched, inputs, and the outputs that they give.
ANSWERS: dict[str, tuple[bool, list[ArrayLike], list[Any]]] = {
    "simple": (
        True,
        [np.full((2, 16), 5), np.full((2, 16), 3)],
        [[[8] * 16] * 2, [[2] * 16] * 2],
    ),
    "two-inputs": (True, [[[1, 1, 1], [0, 0, 0]], [[10], [20]]], [[[11, 12, 13], [20, 20, 20]]]),
    "embedding": (True, [[[0, 4], [1, 1]]], [[[2, -2], [1, -1]]]),
    "sequence": (True, [[[1, 2, 3]]], [[[2, 4, 6]]]),
    "half": (True, [[[0, 1, 2, 0.5]]], [[[1, 2, 3, 1.5]]]),
    "choice": (True, [[[True, False]], [[1.5, 2.5]]], [[[1.5, 0]]]),
    "scalar-output": (False, [[[1, 2, 3], [4, 5, 6]]], [21.0]),
    "scalar-input": (False, [[[1, 2, 3]], 2], [[[2, 4, 6]]]),
    "no-batch-axis": (False, [[[1, 2, 3], [4, 5, 6]]], [[[1, 4], [2, 5], [3, 6]]]),
    "mixed-rows": (False, [[[0, 2], [2, 6]]], [[[-1, -2], [1, 2]]]),
    "pairs": (False, [[[1, 2]], [[3, 4], [5, 6]]], [[[11, 17]]]),
    "default-input": (True, [[[1, 2]]], [[[11, 22]]]),
    "on-cpu-alone": (True, [[[1, 1, 2]]], [[[0.25, 0.25, 0.5]]]),
}


def test_every_model_that_can_be_served_has_answers_here() -> None:
    assert set(ANSWERS) == set(onnx_models.SERVED)


@pytest.mark.parametrize("name", ANSWERS)
def test_model_answers(name: str, tmp_path: Path) -> None:
    batched, inputs, outputs = ANSWERS[name]
    loaded = load(tmp_path, onnx_models.SERVED[name]())
    assert loaded.engine.signature.batched is batched
    assert loaded.engine.max_batch == (8 if batched else 1)
    assert run(loaded, *inputs) == outputs


@pytest.mark.parametrize("name", onnx_models.REFUSED)
def test_model_that_cannot_be_served_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    made, reason = onnx_models.REFUSED[name]
    with pytest.raises(EngineError, match=reason):
        load(tmp_path, made())


#: Models that come with ONNX Runtime and with onnx; and whether they are batched, or why refused.
OF_WHEELS: dict[str, str] = {
    "onnxruntime/datasets/mul_1.onnx": "",
    "onnxruntime/datasets/sigmoid.onnx": "",
    "onnxruntime/datasets/logreg_iris.onnx": r"outputs\.probabilities: .*got seq\(map\(int64,",
    "onnx/backend/test/data/pytorch-converted/test_Conv2d/model.onnx": "",
    "onnx/backend/test/data/pytorch-converted/test_Embedding/model.onnx": "",
    "onnx/backend/test/data/pytorch-operator/test_operator_concat2/model.onnx": "",
    "onnx/backend/test/data/pytorch-operator/test_operator_chunk/model.onnx": "",
    "onnx/backend/test/data/simple/test_expand_shape_model4/model.onnx": "",
    "onnx/backend/test/data/simple/test_sequence_model8/model.onnx": "",
    "onnx/backend/test/data/simple/test_strnorm_model_nostopwords_nochangecase/model.onnx": (
        r"inputs\.x: .*got tensor\(string\)"
    ),
}


@pytest.mark.parametrize("file", OF_WHEELS)
def test_models_that_wheels_have(file: str) -> None:
    package, _, rest = file.partition("/")
    module = {"onnx": onnx, "onnxruntime": onnxruntime}[package]
    path = Path(str(module.__file__)).parent / rest
    if reason := OF_WHEELS[file]:
        with pytest.raises(EngineError, match=reason):
            load_model(path, OPTIONS)
        return
    loaded = load_model(path, OPTIONS)
    assert isinstance(loaded, LoadedTensorModel)
    reference = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for seed in range(3):
        arrays = random_inputs(loaded.engine.signature, seed)
        names = [one.name for one in loaded.engine.signature.inputs]
        expected = reference.run(None, dict(zip(names, arrays, strict=True)))
        found = loaded.engine.run([Tensors(arrays, 1)]).arrays
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def random_inputs(signature: Signature, seed: int) -> tuple[NDArray[Any], ...]:
    """Floating-point numbers, and ones for integers: valid as shapes and as indices."""
    random = np.random.default_rng(seed)
    shapes = [[3 if size == OPEN else size for size in one.shape] for one in signature.inputs]
    dtypes = [DTYPES[one.datatype] for one in signature.inputs]
    return tuple(
        random.normal(size=shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    )


def test_signature_is_what_the_file_states(tmp_path: Path) -> None:
    engine = load(tmp_path, onnx_models.embedding()).engine
    assert engine.signature == Signature(
        (TensorSpec("ids", "INT64", (OPEN, OPEN)),),
        (TensorSpec("mean", "FP32", (OPEN, 2)),),
        batched=True,
    )


def test_times_are_measured_where_only_the_rows_vary(tmp_path: Path) -> None:
    fixed = load(tmp_path, onnx_models.two_inputs(), name="fixed")
    assert set(fixed.batch_s) == {1, 2, 4, 8}
    assert not load(tmp_path, onnx_models.embedding(), name="open").batch_s
    again = load_model(
        tmp_path / "fixed" / "1" / "model.onnx", OPTIONS, batch_s={1: 0.5, 2: 0.75, 8: 1.0}
    )
    assert again.batch_s == {1: 0.5, 2: 0.75, 8: 1.0}


def test_several_requests_share_a_run(tmp_path: Path) -> None:
    loaded = load(tmp_path, onnx_models.two_inputs())
    parts = [request(loaded, [[n, n, n]], [[n]]) for n in range(3)]
    outputs = loaded.engine.run(parts)
    assert outputs.arrays[0].tolist() == [[n * 2, n * 3, n * 4] for n in range(3)]


@pytest.mark.parametrize(
    ("first", "second", "outputs", "batched"),
    [
        ("N", "N", "N", True),
        (None, "N", None, True),
        ("N", "M", "N", False),
        ("N", "N", "M", False),
        ("unk__1", "unk__2", "unk__3", True),
        (1, "N", "N", False),
        ("N", "N", 2, False),
    ],
)
def test_first_axes_with_other_names_or_fixed_sizes_are_no_batch(
    first: str | int | None,
    second: str | int | None,
    outputs: str | int | None,
    batched: bool,
    tmp_path: Path,
) -> None:
    node = onnx.helper.make_node("Add", ["a", "b"], ["y"])
    made = onnx_models.build(
        [node],
        [("a", onnx.TensorProto.FLOAT, [first, 3]), ("b", onnx.TensorProto.FLOAT, [second, 3])],
        [("y", onnx.TensorProto.FLOAT, [outputs, 3])],
    )
    assert load(tmp_path, made).engine.signature.batched is batched


def test_rows_that_depend_on_each_other_are_found_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load(tmp_path, onnx_models.mixed_rows())
    [record] = [one for one in caplog.records if "depend on each other" in one.getMessage()]
    assert record.levelno == logging.INFO


def test_axis_that_only_a_fixed_number_of_rows_fits_is_no_batch(tmp_path: Path) -> None:
    """A graph that makes one row of whatever it is given, although the file states [N, 2]."""
    made = onnx_models.build(
        [onnx.helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)],
        [("x", onnx.TensorProto.FLOAT, ["N", 2])],
        [("y", onnx.TensorProto.FLOAT, [None, 2])],
        {"axes": np.array([0], np.int64)},
    )
    # ONNX Runtime finds out that there is one row, whatever the file states.
    loaded = load(tmp_path, made)
    assert not loaded.engine.signature.batched
    assert run(loaded, [[1, 2], [3, 4]]) == [[[4, 6]]]


def test_model_that_no_sample_suits_is_served_as_its_file_states(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Samples have the size 1, which is too small for this kernel."""
    made = onnx_models.build(
        [onnx.helper.make_node("Conv", ["x", "kernel"], ["y"])],
        [("x", onnx.TensorProto.FLOAT, ["N", 1, "width"])],
        [("y", onnx.TensorProto.FLOAT, ["N", 1, "less"])],
        {"kernel": np.ones((1, 1, 3), np.float32)},
    )
    with caplog.at_level(logging.INFO):
        loaded = load(tmp_path, made)
    assert not caplog.records
    assert capfd.readouterr().err == ""
    assert loaded.engine.signature.batched
    assert run(loaded, [[[1, 2, 3, 4]]]) == [[[[6, 9]]]]


def test_zero_sized_axes_are_values_like_any(tmp_path: Path) -> None:
    loaded = load(tmp_path, onnx_models.doubled_sequence())
    assert run(loaded, np.zeros((2, 0))) == [[[], []]]


def test_values_that_cannot_be_computed_are_the_callers_fault(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load(tmp_path, onnx_models.embedding())
    capfd.readouterr()
    with pytest.raises(InputsRefused, match=r"^indices element out of data bounds, idx=5 .*4]$"):
        run(loaded, [[5]])
    # It is the answer to one call, and no line in the log of the server.
    assert capfd.readouterr().err == ""
    assert run(loaded, [[4]]) == [[[4, -4]]]


def test_divisor_of_zero_is_the_callers_fault(tmp_path: Path) -> None:
    made = onnx_models.build(
        [onnx.helper.make_node("Div", ["x", "by"], ["y"])],
        [("x", onnx.TensorProto.INT32, ["N", 1]), ("by", onnx.TensorProto.INT32, ["N", 1])],
        [("y", onnx.TensorProto.INT32, ["N", 1])],
    )
    loaded = load(tmp_path, made)
    with pytest.raises(InputsRefused, match="Integer division by zero"):
        run(loaded, [[1]], [[0]])
    assert run(loaded, [[6]], [[2]]) == [[[3]]]


def test_largest_batch_is_limited_where_its_time_is_not_known(tmp_path: Path) -> None:
    options = EngineOptions("cpu")
    assert load(tmp_path, onnx_models.embedding(), options, "free").engine.max_batch == 32
    assert load(tmp_path, onnx_models.half_precision(), options, "fixed").engine.max_batch == 64
    chosen = EngineOptions("cpu", max_batch=100)
    assert load(tmp_path, onnx_models.embedding(), chosen, "chosen").engine.max_batch == 100


# What is a bundle


def test_file_with_a_damaged_manifest_is_no_other_model(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "damaged", model({MANIFEST_KEY: "{"}))
    with pytest.raises(BundleError, match=r"convserve\.manifest is damaged"):
        load_model(path, OPTIONS)


def test_file_with_metadata_of_others_is_no_bundle(tmp_path: Path) -> None:
    loaded = load(tmp_path, model({"author": "somebody"}))
    assert [one.name for one in loaded.engine.signature.inputs] == ["pixels"]


def test_bundle_is_a_bundle(tmp_path: Path) -> None:
    assert not isinstance(load_model(write_bundle(tmp_path), OPTIONS), LoadedTensorModel)


@pytest.mark.parametrize("content", [b"", b"no ONNX file", b"\x08\x08"])
def test_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not an ONNX file"):
        load_model(path, OPTIONS)


# External data


def test_weights_in_another_file_of_the_folder(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external())
    np.array([1, 2, 3], np.float32).tofile(path.with_name("weights.bin"))
    loaded = load_model(path, OPTIONS)
    assert isinstance(loaded, LoadedTensorModel)
    assert run(loaded, [[10, 20, 30]]) == [[[11, 22, 33]]]


@pytest.mark.parametrize("size", [3, 3_000_000])
def test_what_is_held_is_what_is_loaded(tmp_path: Path, size: int) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external(size=size))
    weights = path.with_name("weights.bin")
    np.arange(size, dtype=np.float32).tofile(weights)
    held = hold(path, 2**30)
    np.zeros(size, np.float32).tofile(weights)
    path.write_bytes(b"another file")
    loaded = load_model(held, OPTIONS)
    assert isinstance(loaded, LoadedTensorModel)
    held.release()
    # What would be put where they were.
    others = [np.ones(size, np.float32) for _ in range(4)]
    found = loaded.engine.run([Tensors((np.ones((1, size), np.float32),), 1)])
    assert np.array_equal(found.arrays[0], 1 + np.arange(size, dtype=np.float32)[None])
    assert len(others) == 4


def test_what_was_held_is_kept_by_no_engine(tmp_path: Path) -> None:
    held = hold(onnx_models.write(tmp_path, "made", onnx_models.two_inputs()), 2**30)
    content = held.content
    loaded = load_model(held, OPTIONS)
    held.release()
    # The name here, and the argument of the function that counts.
    assert sys.getrefcount(content) == 2
    assert isinstance(loaded, LoadedTensorModel)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external("../weights.bin"))
    np.array([1, 2, 3], np.float32).tofile(path.parent.parent / "weights.bin")
    message = r"external_data: expected a file in the version's folder, got '\.\./weights\.bin'"
    with pytest.raises(BundleError, match=message):
        load_model(path, OPTIONS)


def test_weights_that_are_too_short_are_refused(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external())
    path.with_name("weights.bin").write_bytes(b"\0" * 8)
    with pytest.raises(EngineError, match=r"model\.onnx"):
        load_model(path, OPTIONS)

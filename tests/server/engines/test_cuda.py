"""The CUDA engine on a real device: every answer, whatever came before it and beside it."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import helper

from convserve_bundle.contract import MANIFEST_KEY
from convserve_protos.bundle_pb2 import PRECISION_FLOAT16, PRECISION_TENSOR_FLOAT_32
from convserve_server.engines.base import (
    CPU,
    CUDA,
    EngineError,
    InputsRefused,
    LoadedModel,
    LoadedTensorModel,
    Pixels,
)
from convserve_server.engines.batch_sizes import bucket_sizes
from convserve_server.engines.bundles import load_model
from convserve_server.engines.cpu import CpuEngine
from convserve_server.engines.cuda_graphs import CudaGraphEngine
from convserve_server.engines.device_memory import cuda_memory
from convserve_server.engines.loader import EngineOptions, choose_provider, load_engine
from convserve_server.engines.signatures import OPEN
from convserve_server.engines.tensors import DTYPES, Tensors
from convserve_trainer.export import float16, precisions
from tests import onnx_models
from tests.bundles import SHAPE, manifest, model
from tests.server.convnet import write_convnet

pytestmark = pytest.mark.skipif(
    CUDA not in ort.get_available_providers() or choose_provider("auto") != CUDA,
    reason="needs an NVIDIA GPU and onnxruntime-gpu",
)

_MOST = 64
#: Between the two providers, in float32.
_CLOSE = 1e-5


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_convnet(tmp_path_factory.mktemp("models"), manifest(), seed=1)


@pytest.fixture(scope="module")
def reference(file: Path) -> Any:
    return ort.InferenceSession(str(file), providers=[CPU])


@pytest.fixture(scope="module")
def engine(file: Path) -> CudaGraphEngine:
    engine = load_engine(file, EngineOptions("cuda", max_batch=_MOST))
    assert isinstance(engine, CudaGraphEngine)
    engine.warm_up()
    return engine


def images(count: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)


def check(
    engine: CudaGraphEngine, reference: Any, count: int, seed: int, close: float = _CLOSE
) -> None:
    pixels = images(count, seed)
    expected: NDArray[np.float32] = reference.run(["probabilities"], {"pixels": pixels})[0]
    assert expected.max() - expected.min() > 0.1  # nets that answer all alike would prove nothing
    cut = seed % count
    found = engine.run([pixels[:cut], pixels[cut:]] if cut else [pixels])
    np.testing.assert_allclose(found, expected, rtol=0, atol=close)


def test_every_answer_over_changing_images_and_buckets(
    engine: CudaGraphEngine, reference: Any
) -> None:
    """A captured graph whose buffer was rebound would go on with the first answer."""
    sizes = np.random.default_rng(0).integers(1, engine.max_batch + 1, 300)
    for seed, count in enumerate((*bucket_sizes(engine.max_batch), *sizes)):
        check(engine, reference, int(count), seed)


def test_every_answer_while_two_batches_are_on_their_way(
    engine: CudaGraphEngine, reference: Any
) -> None:
    together = threading.Barrier(engine.parallel)

    def work(worker: int) -> None:
        sizes = np.random.default_rng(worker).integers(1, engine.max_batch + 1, 300)
        for seed, count in enumerate(sizes):
            together.wait(60)
            check(engine, reference, int(count), 1000 * worker + seed)

    with ThreadPoolExecutor(engine.parallel) as pool:
        list(pool.map(work, range(engine.parallel)))


def test_rows_stay_when_the_next_batch_comes(engine: CudaGraphEngine, reference: Any) -> None:
    first = engine.run([images(3, 1)])
    kept = first.copy()
    for seed in range(2 * engine.parallel):
        engine.run([images(3, 100 + seed)])
    np.testing.assert_array_equal(first, kept)


def check_all_sizes(file: Path, reference: Any, use_tf32: str, close: float) -> None:
    engine = load_engine(file, EngineOptions("cuda", max_batch=_MOST))
    assert isinstance(engine, CudaGraphEngine)
    assert engine._session.get_provider_options()[CUDA]["use_tf32"] == use_tf32
    engine.warm_up()
    for seed, count in enumerate(bucket_sizes(engine.max_batch)):
        check(engine, reference, count, seed, close)


def test_float32_is_exact_where_tensor_float_32_was_not_asked_for(
    file: Path, reference: Any
) -> None:
    check_all_sizes(file, reference, "0", _CLOSE)


def test_tensor_float_32_keeps_to_its_bound(tmp_path: Path, reference: Any) -> None:
    asked = manifest()
    asked.precision = PRECISION_TENSOR_FLOAT_32
    file = write_convnet(tmp_path, asked, seed=1)
    check_all_sizes(file, reference, "1", precisions.BOUNDS[asked.precision])


def test_float16_keeps_to_its_bound(file: Path, tmp_path: Path, reference: Any) -> None:
    half = tmp_path / "model.onnx"
    onnx.save(float16.convert(onnx.load(file)), half)
    check_all_sizes(half, reference, "0", precisions.BOUNDS[PRECISION_FLOAT16])


def test_batches_are_as_large_as_the_limit_of_device_memory_allows(
    file: Path, reference: Any
) -> None:
    engine = load_engine(file, EngineOptions("cuda", max_batch=1024, device_bytes=32 * 2**20))
    assert isinstance(engine, CudaGraphEngine)
    engine.warm_up()
    assert 1 < engine.max_batch < 1024
    for seed in range(20):
        check(engine, reference, 1 + seed * engine.max_batch // 20, seed)


def test_model_that_does_not_fit_the_limit_of_device_memory_is_refused(file: Path) -> None:
    with pytest.raises(EngineError, match="(?i)memory"):
        load_engine(file, EngineOptions("cuda", device_bytes=2**16))


def normalized() -> onnx.ModelProto:
    """The bundle of digits with a last node that ONNX Runtime has for the CPU alone.

    It divides each row by its sum, which is 1.
    """
    made = model({MANIFEST_KEY: json_format.MessageToJson(manifest())})
    made.graph.node[-1].output[0] = "softmax"
    made.graph.node.append(
        helper.make_node(
            "Normalizer", ["softmax"], ["probabilities"], domain="ai.onnx.ml", norm="L1"
        )
    )
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return made


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_bundle_of_which_a_node_falls_to_the_cpu_is_served_without_graphs_and_says_so(
    device: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = onnx_models.write(tmp_path, "mnist", normalized())
    loaded = load_model(path, EngineOptions(device, max_batch=8))
    assert isinstance(loaded, LoadedModel)
    assert isinstance(loaded.engine, CpuEngine)
    assert loaded.engine.provider == CUDA
    [record] = [one for one in caplog.records if "without CUDA graphs" in one.getMessage()]
    assert str(path) in record.getMessage()
    reference = ort.InferenceSession(str(path), providers=[CPU])
    for count in (1, 3, 8):
        pixels = images(count, count)
        expected = reference.run(["probabilities"], {"pixels": pixels})[0]
        found = loaded.engine.run([pixels])
        np.testing.assert_allclose(found, expected, rtol=0, atol=_CLOSE)


# Models that are not bundles


@pytest.mark.parametrize("name", onnx_models.SERVED)
def test_any_model_gives_on_the_device_what_it_gives_on_the_cpu(name: str, tmp_path: Path) -> None:
    """Two inputs, float16, a node that falls to the CPU, a scalar and so on."""
    path = onnx_models.write(tmp_path, name, onnx_models.SERVED[name]())
    engines = []
    for device, provider in (("cuda", CUDA), ("cpu", CPU)):
        loaded = load_model(path, EngineOptions(device, max_batch=8))
        assert isinstance(loaded, LoadedTensorModel)
        assert loaded.engine.provider == provider
        engines.append(loaded.engine)
    on_device, on_cpu = engines
    assert on_device.signature == on_cpu.signature
    assert on_device.max_batch == on_cpu.max_batch
    random = np.random.default_rng(0)
    for count in (1, 3, 8):
        arrays = []
        for one in on_cpu.signature.inputs:
            sizes = [2 if size == OPEN else size for size in one.shape]
            if on_cpu.signature.batched:
                sizes[0] = count
            arrays.append(random.integers(0, 2, sizes).astype(DTYPES[one.datatype]))
        inputs = Tensors(tuple(arrays), count if on_cpu.signature.batched else 1)
        found, expected = on_device.run([inputs]), on_cpu.run([inputs])
        for own, other in zip(found.arrays, expected.arrays, strict=True):
            assert (own.dtype, own.shape) == (other.dtype, other.shape)
            np.testing.assert_allclose(own, other, rtol=0, atol=_CLOSE)


def test_values_that_the_device_is_given_by_mistake_fail_alone(tmp_path: Path) -> None:
    """An index beyond the table of an embedding: on a device there may be no error for it."""
    path = onnx_models.write(tmp_path, "embedding", onnx_models.embedding())
    loaded = load_model(path, EngineOptions("cuda", max_batch=8))
    assert isinstance(loaded, LoadedTensorModel)
    with contextlib.suppress(InputsRefused):
        loaded.engine.run([Tensors((np.array([[99]]),), 1)])
    good = loaded.engine.run([Tensors((np.array([[3]]),), 1)])
    assert good.arrays[0].tolist() == [[3, -3]]


def test_device_says_how_much_memory_it_has() -> None:
    free, total = cuda_memory().free_and_total()
    assert 0 < free <= total


def test_copies_there_and_back_change_nothing() -> None:
    memory = cuda_memory()
    sent = memory.host((3, 5), np.float32)
    sent[:] = np.arange(15, dtype=np.float32).reshape(3, 5)
    value = ort.OrtValue.ortvalue_from_shape_and_type((3, 5), np.float32, "cuda")
    memory.copy_in(value.data_ptr(), sent.ctypes.data, sent.nbytes)
    back = memory.host((3, 5), np.float32)
    back[:] = 0
    memory.copy_out(back.ctypes.data, value.data_ptr(), back.nbytes)
    np.testing.assert_array_equal(back, sent)


def test_bad_copy_says_what_cuda_says() -> None:
    with pytest.raises(RuntimeError, match=r"copying 4 bytes: .+ \(CUDA error \d+\)"):
        cuda_memory().copy_in(16, np.zeros(1, np.float32).ctypes.data, 4)

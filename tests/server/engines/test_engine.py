"""Engines over ONNX Runtime, on the CPU provider."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from convserve_server.engines.base import CPU, Engine, EngineError, Pixels
from convserve_server.engines.batch_sizes import BatchSizes
from convserve_server.engines.bundles import load_model
from convserve_server.engines.cpu import CpuEngine, ThreadAllowance
from convserve_server.engines.cuda_graphs import CudaGraphEngine
from convserve_server.engines.device_memory import HostMemory
from convserve_server.engines.loader import EngineOptions, load_engine
from convserve_server.host.engine_activity import EngineActivity, create
from convserve_server.host.spare_cpus import SpareCpus
from convserve_trainer.export import float16
from tests.bundles import CLASSES, SHAPE, digit_of, manifest, model, write_bundle
from tests.server.transports.test_conformance import until

MakeEngine = Callable[[Any, str, int], Engine]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def session(file: Path) -> Any:
    return ort.InferenceSession(str(file), providers=[CPU])


def random_images(count: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)


def pieces(images: Pixels, seed: int) -> list[Pixels]:
    """The images, split at random indices."""
    choose = np.random.default_rng(seed)
    cuts = np.flatnonzero(choose.random(len(images) - 1) < 0.4) + 1
    return np.split(images, cuts)


def on_cpu(session: Any, provider: str, max_batch: int) -> CpuEngine:
    return CpuEngine(session, provider, BatchSizes(max_batch))


def with_graphs(session: Any, provider: str, max_batch: int) -> CudaGraphEngine:
    return CudaGraphEngine(session, provider, BatchSizes(max_batch), HostMemory())


def one_by_one(session: Any, images: Pixels) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = [session.run(["probabilities"], {"pixels": image[None]})[0] for image in images]
    return np.concatenate(rows)


# The rows


class Counted:
    """A session that counts its runs, each of which takes as long as we say."""

    def __init__(self, session: Any, clock: list[float], run_s: float) -> None:
        self._session = session
        self._clock = clock
        self._run_s = run_s
        self.runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: Any, inputs: dict[str, Pixels]) -> Any:
        self.runs += 1
        self._clock[0] += self._run_s
        return self._session.run(outputs, inputs)


@pytest.mark.parametrize(("image_s", "expensive"), [(0.0005, False), (0.002, True)])
def test_expensive_model_has_more_threads_while_no_other_engine_is_at_work(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_s: float, expensive: bool
) -> None:
    clock = [0.0]
    monkeypatch.setattr("convserve_server.engines.batch_sizes.time.perf_counter", lambda: clock[0])
    engines = create(2)
    mine, others = EngineActivity(engines, 0), EngineActivity(engines, 1)
    few, many = Counted(session, clock, image_s), Counted(session, clock, image_s / 2)
    engine = CpuEngine(few, CPU, BatchSizes(8), activity=mine, many_threads=lambda: many)
    engine.warm_up()

    def runs() -> tuple[int, int]:
        before = few.runs, many.runs
        engine.run([random_images(1, 0)])
        return few.runs - before[0], many.runs - before[1]

    assert runs() == ((0, 1) if expensive else (1, 0))
    others.begin()
    assert runs() == (1, 0)
    others.end()
    assert runs() == ((0, 1) if expensive else (1, 0))


def test_only_cheap_models_have_spare_cpus_for_more_batches(
    file: Path, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = create(2)
    activity = EngineActivity(engines, 0)
    spare = SpareCpus(activity, frozenset(), 2)
    options = EngineOptions("cpu", 1, 8)
    engine = load_engine(file, options, ThreadAllowance(2, frozenset(), activity, spare))
    assert engine.spare is spare
    clock = [0.0]
    monkeypatch.setattr("convserve_server.engines.batch_sizes.time.perf_counter", lambda: clock[0])
    for image_s, expected in ((0.0005, spare), (0.002, None)):
        counted = Counted(session, clock, image_s)
        timed = CpuEngine(
            counted, CPU, BatchSizes(8), activity, partial(Counted, session, clock, image_s)
        )
        timed.spare = spare
        timed.warm_up()
        assert timed.spare is expected


def test_engine_that_fails_is_no_longer_at_work(session: Any, tmp_path: Path) -> None:
    engines = create(2)
    engine = CpuEngine(session, CPU, BatchSizes(8), activity=EngineActivity(engines, 0))
    with pytest.raises(Exception, match="Got invalid dimensions"):
        engine.run([np.zeros((1, 3, 3, 1), np.uint8)])
    assert EngineActivity(engines, 1).begin()


def test_session_with_many_threads_answers_alike_and_leaves_the_thread_where_it_was(
    file: Path, tmp_path: Path
) -> None:
    engines = create(2)
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        allowance = ThreadAllowance(2, frozenset(cpus), EngineActivity(engines, 0))
        engine = load_engine(file, EngineOptions("cpu", 1, 8), allowance)
        assert isinstance(engine, CpuEngine)
        many = engine._make_many_threads()
        assert os.sched_getaffinity(0) == {min(cpus)}
    finally:
        os.sched_setaffinity(0, cpus)
    images = random_images(5, 0)
    (rows,) = many.run(["probabilities"], {"pixels": images})
    np.testing.assert_allclose(rows, engine.run([images]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [on_cpu, with_graphs])
@pytest.mark.parametrize("max_batch", [1, 6, 16])
def test_batch_of_any_size_gives_the_rows_of_single_runs(
    make: MakeEngine, max_batch: int, session: Any
) -> None:
    engine = make(session, CPU, max_batch)
    engine.warm_up()
    sizes = [*range(1, max_batch + 1), *range(max_batch, 0, -1)]
    kept = []
    for seed, size in enumerate(sizes):
        images = random_images(size, seed)
        rows = engine.run(pieces(images, seed))
        assert (rows.dtype, rows.shape) == (np.dtype(np.float32), (size, CLASSES))
        kept.append((rows, one_by_one(session, images)))
    # Compared at the end: a later run must not have written into an earlier answer.
    for rows, expected in kept:
        np.testing.assert_allclose(rows, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [on_cpu, with_graphs])
def test_rows_are_in_the_order_of_the_images(make: MakeEngine, session: Any) -> None:
    engine = make(session, CPU, 16)
    classes = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    images = [digit_of(class_)[None] for class_ in classes]
    assert engine.run(images).argmax(axis=1).tolist() == classes


@pytest.mark.parametrize("make", [on_cpu, with_graphs])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_read_only_and_strided_images_are_taken(make: MakeEngine, count: int, session: Any) -> None:
    engine = make(session, CPU, 4)
    images = random_images(2 * count, 0)
    read_only = np.frombuffer(images[::2].tobytes(), np.uint8).reshape(-1, *SHAPE)
    expected = one_by_one(session, read_only)
    np.testing.assert_allclose(engine.run([read_only]), expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(engine.run([images[::2]]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [on_cpu, with_graphs])
def test_engine_tells_what_the_file_says(make: MakeEngine, session: Any) -> None:
    engine = make(session, CPU, 5)
    assert (engine.provider, engine.max_batch) == (CPU, 5)
    assert (engine.image_shape, engine.classes) == (SHAPE, CLASSES)
    assert manifest().name in engine.metadata["convserve.manifest"]


@pytest.mark.parametrize("make", [on_cpu, with_graphs])
def test_float16_answers_as_float32_does_within_a_hundredth(
    make: MakeEngine, session: Any, tmp_path: Path
) -> None:
    path = tmp_path / "half.onnx"
    onnx.save(float16.convert(model({})), path)
    engine = make(ort.InferenceSession(str(path), providers=[CPU]), CPU, 8)
    engine.warm_up()
    # Digits of which two classes are nearly as bright: the steepest part of the softmax.
    images = np.zeros((8, *SHAPE), np.uint8)
    images[:, 0, 3, 0], images[:, 0, 4, 0] = 200, np.arange(193, 209, 2)
    expected = one_by_one(session, images)
    found = np.concatenate([engine.run([image[None]]) for image in images])
    assert 0 < np.abs(found - expected).max() <= 1e-2
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


class RecordingSession:
    """A session that keeps the batch sizes that it ran."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: list[str], inputs: dict[str, Pixels]) -> Any:
        self.sizes.append(len(inputs["pixels"]))
        return self._session.run(outputs, inputs)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._session.run_with_iobinding(binding, options)
        self.sizes.append(binding.get_outputs()[0].shape()[0])


def test_cpu_engine_runs_batches_as_they_come(session: Any) -> None:
    recording = RecordingSession(session)
    engine = on_cpu(recording, CPU, 8)
    for size in (3, 8, 5):
        engine.run([random_images(size, size)])
    assert recording.sizes == [3, 8, 5]


def test_cpu_engine_warm_up_ends_with_the_largest_and_the_smallest(session: Any) -> None:
    recording = RecordingSession(session)
    engine = on_cpu(recording, CPU, 8)
    engine.warm_up()
    assert recording.sizes[-2:] == [engine.max_batch, 1]
    assert set(recording.sizes) <= {1, 2, 4, 8}


@pytest.mark.parametrize("make", [on_cpu, with_graphs])
def test_warm_up_that_is_given_times_measures_none_and_goes_by_them(
    make: MakeEngine, session: Any
) -> None:
    recording = RecordingSession(session)
    engine = make(recording, CPU, 16)
    times = {1: 1e-4, 2: 2e-4, 4: 4e-4}
    assert engine.warm_up(times) == times
    assert engine.max_batch == 4
    assert max(recording.sizes) == 4
    # Buckets are warmed up twice in each of two sets.
    assert len(recording.sizes) <= 2 * 2 * len(times)


@pytest.mark.parametrize("make", [on_cpu, with_graphs])
def test_warm_up_returns_the_times_up_to_the_largest_batch(make: MakeEngine, session: Any) -> None:
    engine = make(session, CPU, 16)
    times = engine.warm_up()
    assert max(times) == engine.max_batch
    assert min(times) == 1
    assert min(times.values()) > 0


def test_largest_batch_of_several_threads_is_chosen_on_one(session: Any) -> None:
    alone, several = RecordingSession(session), RecordingSession(session)
    engine = CpuEngine(several, CPU, BatchSizes(64), one_thread=lambda: alone)
    times = engine.warm_up()
    assert max(alone.sizes) >= engine.max_batch == max(times) == max(several.sizes)
    assert min(several.sizes.count(size) for size in times) >= 5


def test_graph_engine_runs_the_smallest_bucket_that_holds_the_batch(session: Any) -> None:
    recording = RecordingSession(session)
    engine = with_graphs(recording, CPU, 12)
    for size in range(1, 13):
        engine.run([random_images(size, size)])
    assert recording.sizes == [1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]


def test_graph_engine_warm_up_runs_every_bucket_of_both_sets(session: Any) -> None:
    recording = RecordingSession(session)
    engine = with_graphs(recording, CPU, 12)
    engine.warm_up()
    kept = [rows for rows in (1, 2, 4, 8, 12) if rows <= engine.max_batch]
    assert all(recording.sizes.count(rows) >= 4 for rows in kept)
    assert [buffers.sizes for buffers in engine._buffer_sets] == [kept, kept]


class SmallDevice(RecordingSession):
    """A session whose device holds so many images."""

    def __init__(self, session: Any, most: int, why: str) -> None:
        super().__init__(session)
        self._most = most
        self._why = why

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if binding.get_outputs()[0].shape()[0] > self._most:
            raise RuntimeError(self._why)
        super().run_with_iobinding(binding, options)


def test_graph_engine_keeps_to_batches_that_fit_the_device(
    session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = with_graphs(SmallDevice(session, 4, "Failed to allocate memory for 9 bytes"), CPU, 16)
    engine.warm_up()
    assert engine.max_batch == 4
    [warning] = caplog.records
    assert warning.getMessage() == (
        "batches of 8 do not fit the device's memory: Failed to allocate memory for 9 bytes"
    )
    images = random_images(4, 1)
    np.testing.assert_allclose(engine.run([images]), one_by_one(session, images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("most", "why"), [(0, "out of memory"), (4, "the device is lost")])
def test_graph_engine_that_cannot_run_does_not_start(session: Any, most: int, why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        with_graphs(SmallDevice(session, most, why), CPU, 16).warm_up()


def test_graph_engine_copies_while_another_batch_runs(session: Any) -> None:
    """Two threads: the second one's images are in its buffers before the first one's run ends."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(RecordingSession):
        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            if not inside.is_set():
                inside.set()
                assert go_on.wait(20.0)
            super().run_with_iobinding(binding, options)

    engine = with_graphs(Slow(session), CPU, 4)
    first, second = random_images(2, 1), random_images(3, 2)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(engine.run, [first])
        assert inside.wait(20.0)
        two = pool.submit(engine.run, [second])
        until(engine._free.empty)  # it has its buckets, beyond which it cannot get
        assert not two.done()
        go_on.set()
        np.testing.assert_allclose(one.result(), one_by_one(session, first), atol=1e-5, rtol=0)
        np.testing.assert_allclose(two.result(), one_by_one(session, second), atol=1e-5, rtol=0)


def test_graph_engine_under_many_threads_gives_each_its_own_rows(session: Any) -> None:
    engine = with_graphs(session, CPU, 16)
    engine.warm_up()

    def check(seed: int) -> None:
        images = random_images(1 + seed % engine.max_batch, seed)
        np.testing.assert_allclose(
            engine.run([images]), one_by_one(session, images), atol=1e-5, rtol=0
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(200)))


# Loading


def test_load_on_cpu_gives_a_cpu_engine_with_the_options(file: Path) -> None:
    engine = load_engine(file, EngineOptions(device="cpu", threads=3, max_batch=7))
    assert isinstance(engine, CpuEngine)
    assert (engine.provider, engine.max_batch) == (CPU, 7)
    options = engine._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08" * 1000])
def test_file_that_is_no_model_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        load_engine(file, EngineOptions("cpu"))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_file_cut_short_is_named(file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "model.onnx"
    cut.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(EngineError, match=str(cut)):
        load_engine(cut, EngineOptions("cpu"))


def test_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.onnx"):
        load_engine(tmp_path / "none.onnx", EngineOptions("cpu"))


def refusal(folder: Path, change: Callable[[onnx.ModelProto], object]) -> str:
    """Why a model that was changed is refused."""
    changed = model({})
    change(changed)
    file = folder / "model.onnx"
    onnx.save(changed, file)
    with pytest.raises(EngineError) as caught:
        load_engine(file, EngineOptions("cpu"))
    return str(caught.value)


def dimension(value: onnx.ValueInfoProto, axis: int) -> Any:
    return value.type.tensor_type.shape.dim[axis]


def test_input_of_another_name_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = model.graph.node[0].input[0] = "image"

    assert refusal(tmp_path, change) == "inputs: expected one named pixels, got ['image']"


def test_second_input_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))

    message = refusal(tmp_path, change)
    assert message == "inputs: expected one named pixels, got ['mask', 'pixels']"


EXPECTED = "input pixels: expected uint8 [N, H, W, C] with N alone open, got"


def test_input_of_another_type_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    expected = f"{EXPECTED} tensor(float) ['N', 28, 28, 1]"
    assert refusal(tmp_path, change) == expected


def test_input_of_another_rank_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.input[0].type.tensor_type.shape.dim[3]

    expected = f"{EXPECTED} tensor(uint8) ['N', 28, 28]"
    assert refusal(tmp_path, change) == expected


def test_input_of_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        dimension(model.graph.input[0], 0).dim_value = 8

    expected = f"{EXPECTED} tensor(uint8) [8, 28, 28, 1]"
    assert refusal(tmp_path, change) == expected


@pytest.mark.parametrize(("symbol", "shown"), [("H", "'H'"), (None, "None")])
def test_input_of_open_height_is_refused(symbol: str | None, shown: str, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        height = dimension(model.graph.input[0], 1)
        height.Clear()
        if symbol is not None:
            height.dim_param = symbol

    expected = f"{EXPECTED} tensor(uint8) ['N', {shown}, 28, 1]"
    assert refusal(tmp_path, change) == expected


def rename_output(model: onnx.ModelProto, name: str) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = name


def test_output_of_another_name_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, lambda model: rename_output(model, "dense_1"))
    assert message == "outputs: expected one named probabilities, got ['dense_1']"


def append_node(model: onnx.ModelProto, kind: str, type_: int, shape: list[Any], **a: Any) -> None:
    """Make probabilities from what they were by one more node."""
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node(kind, ["before"], ["probabilities"], **a))
    del model.graph.output[0]
    model.graph.output.append(helper.make_tensor_value_info("probabilities", type_, shape))


def test_output_of_another_type_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        double = TensorProto.DOUBLE
        append_node(model, "Cast", double, ["N", CLASSES], to=double)

    assert refusal(tmp_path, change) == (
        "output probabilities: expected float32 [N, K] with N alone open, "
        "got tensor(double) ['N', 10]"
    )


def test_output_of_another_rank_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        append_node(model, "ReduceMax", TensorProto.FLOAT, ["N"], axes=[1], keepdims=0)

    assert refusal(tmp_path, change) == (
        "output probabilities: expected float32 [N, K] with N alone open, got tensor(float) ['N']"
    )


def test_output_of_open_width_is_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        # As many columns as are not zero: nobody knows before the run.
        append_node(model, "NonZero", TensorProto.INT64, ["two", "K"])
        model.graph.node[-1].output[0] = "indices"
        model.graph.node.append(
            helper.make_node("Cast", ["indices"], ["probabilities"], to=TensorProto.FLOAT)
        )
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT

    message = refusal(tmp_path, change)
    assert message.startswith(
        "output probabilities: expected float32 [N, K] with N alone open, got tensor(float) ["
    )


def test_bundle_of_an_earlier_export_is_named_with_what_mends_it(
    file: Path, tmp_path: Path
) -> None:
    options = EngineOptions("cpu", max_batch=2)
    assert load_model(file, options).advice == ""
    # As it was exported: pixels are scaled before their shape is changed.
    made = onnx.load(file)
    shaping, cast, _, product = made.graph.node[:4]
    cast.input[0], shaping.input[0], product.input[0] = "pixels", "scaled", "rows"
    made.graph.node.remove(shaping)
    made.graph.node.insert(2, shaping)
    earlier = tmp_path / "mnist" / "1" / "model.onnx"
    earlier.parent.mkdir(parents=True)
    onnx.save(made, earlier)
    advice = load_model(earlier, options).advice
    assert "Mul over a last axis of 1" in advice
    assert f"convserve-train convert {earlier.parent} --precision float32 publishes" in advice

"""Which device an engine is made for, what it is asked for there, and what is refused."""

import logging
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest

from convserve_bundle.errors import BundleError
from convserve_protos.bundle_pb2 import (
    PRECISION_FLOAT16,
    PRECISION_FLOAT32,
    PRECISION_INT8,
    PRECISION_TENSOR_FLOAT_32,
    PRECISION_UNSPECIFIED,
    Precision,
)
from convserve_server.engines import loader
from convserve_server.engines.base import CPU, CUDA, EngineError
from convserve_server.engines.cpu import CpuEngine
from convserve_server.engines.device_memory import HostMemory
from convserve_server.engines.loader import (
    EngineOptions,
    check_installation,
    choose_provider,
    load_engine,
    load_tensor_engine,
)
from tests import onnx_models
from tests.bundles import model, write_bundle


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def provider_is_chosen_anew() -> Iterator[None]:
    choose_provider.cache_clear()
    yield
    choose_provider.cache_clear()


class FakeRuntime:
    """onnxruntime with other providers than it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
        self.preloaded = 0
        monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))
        monkeypatch.setattr(ort, "preload_dlls", self._preload, raising=False)
        self._monkeypatch = monkeypatch

    def make_cuda_work(self) -> None:
        """Let nets be made for CUDA, if not models."""
        real = loader._session

        def session(model: Path | bytes, provider: str, options: EngineOptions) -> Any:
            return object() if isinstance(model, bytes) else real(model, provider, options)

        self._monkeypatch.setattr(loader, "_session", session)
        self._monkeypatch.setattr(loader, "cuda_memory", HostMemory)

    def _preload(self) -> None:
        self.preloaded += 1


def test_device_cuda_without_it_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    FakeRuntime(monkeypatch, CPU)
    expected = (
        "device cuda: this onnxruntime has only CPUExecutionProvider; "
        "install 'convserve[gpu]' in place of 'convserve[serve]'"
    )
    with pytest.raises(EngineError) as caught:
        choose_provider("cuda")
    assert str(caught.value) == expected
    with pytest.raises(EngineError) as caught:
        load_engine(file, EngineOptions("cuda"))
    assert str(caught.value) == expected


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this machine may have CUDA")
def test_device_cuda_with_the_cpu_package_is_refused(file: Path) -> None:
    with pytest.raises(EngineError, match=r"device cuda: this onnxruntime has only .*convserve\["):
        load_engine(file, EngineOptions("cuda"))


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        ("cpu", [CPU], CPU),
        ("cpu", [CUDA, CPU], CPU),
        ("auto", [CPU], CPU),
        ("auto", [CUDA, CPU], CUDA),
        ("cuda", [CUDA, CPU], CUDA),
    ],
)
def test_provider_fits_device_and_what_is_there(
    device: str, available: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = FakeRuntime(monkeypatch, *available)
    runtime.make_cuda_work()
    assert choose_provider(device) == expected
    # NVIDIA's libraries are found only if they were loaded before the first session.
    assert runtime.preloaded == (expected == CUDA)


#: What ONNX Runtime says of a provider that it was not built with.
UNBUILT = pytest.mark.filterwarnings("ignore:Specified provider")


@UNBUILT
@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this machine may have CUDA")
def test_cuda_that_does_not_work_is_refused_before_there_is_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeRuntime(monkeypatch, CUDA, CPU)
    with pytest.raises(EngineError, match=r"device cuda: CUDA does not work here .*NVIDIA Contain"):
        choose_provider("cuda")


@UNBUILT
@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this machine may have CUDA")
def test_auto_with_cuda_that_does_not_work_warns_once_and_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FakeRuntime(monkeypatch, CUDA, CPU)
    for _ in range(2):
        engine = load_engine(file, EngineOptions("auto", max_batch=2))
        assert isinstance(engine, CpuEngine)
        assert engine.provider == CPU
        engine.warm_up()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("serving on the CPU: CUDA does not work here")


@UNBUILT
@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this machine may have CUDA")
def test_model_that_cuda_does_not_take_is_no_cpu_in_silence(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    FakeRuntime(monkeypatch, CUDA, CPU).make_cuda_work()
    with pytest.raises(EngineError, match="CUDAExecutionProvider did not initialize"):
        load_engine(file, EngineOptions("cuda"))


@UNBUILT
@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this machine may have CUDA")
def test_model_that_cuda_does_not_take_goes_to_the_cpu_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FakeRuntime(monkeypatch, CUDA, CPU).make_cuda_work()
    engine = load_engine(file, EngineOptions("auto", max_batch=2))
    assert isinstance(engine, CpuEngine)
    assert engine.provider == CPU
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "CUDA cannot be used, falling back to the CPU"
    engine.warm_up()


# Precision


class AskedCuda:
    """Makes sessions for CUDA on the CPU, and keeps what the provider would be asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeRuntime(monkeypatch, CUDA, CPU)
        self.asked: list[dict[str, str]] = []
        self._real = loader._session
        monkeypatch.setattr(loader, "_session", self._session)
        monkeypatch.setattr(loader, "cuda_memory", HostMemory)

    def _session(self, model: Path | bytes, provider: str, options: EngineOptions) -> Any:
        if isinstance(model, bytes):
            return object()
        if provider == CUDA:
            self.asked.append(loader._provider_options(provider, options))
        return self._real(model, CPU, options)


@pytest.mark.parametrize(
    ("precision", "use_tf32"),
    [
        (PRECISION_UNSPECIFIED, "0"),
        (PRECISION_FLOAT32, "0"),
        (PRECISION_TENSOR_FLOAT_32, "1"),
        (PRECISION_FLOAT16, "0"),
    ],
)
def test_cuda_takes_tensor_float_32_for_bundles_that_say_so_alone(
    precision: Precision.ValueType,
    use_tf32: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[str, int]] = []
    cuda = AskedCuda(monkeypatch)
    monkeypatch.setattr(
        loader,
        "CudaGraphEngine",
        lambda session, provider, sizes, _: made.append((provider, sizes.max_batch)),
    )
    load_engine(write_bundle(tmp_path, precision=precision), EngineOptions("cuda", max_batch=4))
    assert made == [(CUDA, 4)]
    assert [asked["use_tf32"] for asked in cuda.asked] == [use_tf32]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_int8_runs_on_the_cpu_of_a_cuda_server_and_says_so(
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cuda = AskedCuda(monkeypatch)
    path = write_bundle(tmp_path, precision=PRECISION_INT8)
    engine = load_engine(path, EngineOptions(device, max_batch=4))
    assert isinstance(engine, CpuEngine)
    assert engine.provider == CPU
    assert cuda.asked == []
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{path} runs on the CPU: it is of int8, which is for CPUs; publish it in tf32 or float16 "
        "for CUDA"
    )


def test_cuda_is_not_asked_for_what_is_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = AskedCuda(monkeypatch)
    onnx.save(model({"convserve.manifest": '{"precision": "INT4"}'}), tmp_path / "unknown.onnx")
    onnx.save(model({}), tmp_path / "bare.onnx")
    for name, message in (
        ("unknown", "manifest.precision: .*, got 'INT4'"),
        ("bare", "an ONNX file without"),
    ):
        with pytest.raises(BundleError, match=message):
            load_engine(tmp_path / f"{name}.onnx", EngineOptions("cuda"))
    with pytest.raises(EngineError, match=r"none\.onnx"):
        load_engine(tmp_path / "none.onnx", EngineOptions("cuda"))
    assert cuda.asked == []


def without_graphs(monkeypatch: pytest.MonkeyPatch, cuda: AskedCuda) -> None:
    """Pretend that a node falls to the CPU, so that CUDA refuses sessions with graphs."""
    whole = cuda._session

    def session(model: Path | bytes, provider: str, options: EngineOptions) -> Any:
        if provider == CUDA and options.graphs and not isinstance(model, bytes):
            raise EngineError("a node is on the CPU")
        return whole(model, provider, options)

    monkeypatch.setattr(loader, "_session", session)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_model_that_cannot_have_graphs_is_served_on_cuda_without_and_says_so(
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cuda = AskedCuda(monkeypatch)
    without_graphs(monkeypatch, cuda)
    path = write_bundle(tmp_path)
    engine = load_engine(path, EngineOptions(device, max_batch=4))
    assert isinstance(engine, CpuEngine)
    assert engine.provider == CUDA
    assert set(engine.warm_up()) == {1, 2, 4}
    assert [asked["enable_cuda_graph"] for asked in cuda.asked] == ["0"]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{path} is served without CUDA graphs, which need all of its nodes on the device: a node "
        "is on the CPU"
    )


def test_model_that_is_not_a_bundle_is_served_on_cuda_in_float32_without_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = AskedCuda(monkeypatch)
    path = onnx_models.write(tmp_path, "made", onnx_models.two_inputs())
    engine = load_tensor_engine(path, EngineOptions("cuda", max_batch=4))
    assert engine.provider == CUDA
    assert set(engine.warm_up()) == {1, 2, 4}
    assert [(asked["enable_cuda_graph"], asked["use_tf32"]) for asked in cuda.asked] == [("0", "0")]
    assert not caplog.records


# Installation


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that these distributions alone are installed."""

    def distribution(name: str) -> object:
        if name not in names:
            raise metadata.PackageNotFoundError(name)
        return object()

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_both_onnxruntimes_installed_are_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(EngineError) as caught:
        check_installation()
    message = str(caught.value)
    assert "onnxruntime and onnxruntime-gpu are both installed" in message
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in message
    assert "'convserve[serve]'" in message
    assert "'convserve[gpu]'" in message


@pytest.mark.parametrize("names", [["onnxruntime"], ["onnxruntime-gpu"], []])
def test_one_onnxruntime_installed_is_fine(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, *names)
    check_installation()


def test_this_installation_is_fine() -> None:
    check_installation()


def test_cuda_computes_in_float32_captures_graphs_and_keeps_to_its_memory() -> None:
    options = loader._provider_options(CUDA, EngineOptions(device_bytes=2**30))
    assert options["use_tf32"] == "0"
    assert options["enable_cuda_graph"] == "1"
    assert options["gpu_mem_limit"] == "1073741824"
    assert "gpu_mem_limit" not in loader._provider_options(CUDA, EngineOptions())
    assert loader._provider_options(CPU, EngineOptions(device_bytes=2**30)) == {}

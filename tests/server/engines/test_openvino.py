"""Which bundles OpenVINO runs, what is logged of it, and what it answers where it is installed."""

import gc
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_FLOAT16,
    PRECISION_FLOAT32,
    PRECISION_INT8,
    PRECISION_TENSOR_FLOAT_32,
    PRECISION_UNSPECIFIED,
    Precision,
)
from convserve_server.engines import openvino
from convserve_server.engines.base import CPU, OPENVINO, EngineError, LoadedModel
from convserve_server.engines.bundles import load_model
from convserve_server.engines.cpu import ThreadAllowance
from convserve_server.engines.loader import EngineOptions, choose_provider, load_engine
from convserve_server.engines.openvino import cpu_flags
from convserve_server.host.engine_activity import EngineActivity, create
from tests import intel_cpu, onnx_models
from tests.bundles import SHAPE, digit_of, write_bundle

AMX = frozenset({"amx_tile", "amx_bf16", "amx_int8"})


@pytest.fixture(autouse=True)
def everything_is_found_anew() -> Iterator[None]:
    cached: tuple[Any, ...] = (choose_provider, openvino._tell_once)
    for one in cached:
        one.cache_clear()
    yield
    for one in cached:
        one.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes up a machine: what its CPU can do, and the plug-in with what that offers."""

    def make(flags: frozenset[str], version: str = "", capabilities: str = "FP32") -> None:
        device = SimpleNamespace(ep_metadata={"OPTIMIZATION_CAPABILITIES": capabilities})
        devices = [device] if capabilities else []
        monkeypatch.setattr(openvino, "cpu_flags", lambda: flags)
        monkeypatch.setattr(openvino, "_version", lambda: version)
        monkeypatch.setattr(openvino, "_devices", lambda: devices)

    return make


def chosen(engine: str, precision: Precision.ValueType, *, tell: bool = True) -> bool:
    return openvino.is_chosen(engine, precision, "mnist/1", tell=tell)


# The choice


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        (PRECISION_UNSPECIFIED, False),
        (PRECISION_FLOAT32, False),
        (PRECISION_TENSOR_FLOAT_32, False),
        (PRECISION_FLOAT16, False),
        (PRECISION_BFLOAT16, True),
        (PRECISION_INT8, True),
    ],
)
def test_auto_is_openvino_for_what_matrix_units_multiply(
    precision: Precision.ValueType, expected: bool, machine: Callable[..., None]
) -> None:
    machine(AMX, "1.8.1", "BF16 FP32 INT8")
    assert chosen("auto", precision) is expected
    assert chosen("openvino", precision)
    assert not chosen("onnxruntime", precision)
    machine(AMX)
    assert not chosen("auto", precision)
    machine(frozenset(), "1.8.1")
    assert not chosen("auto", precision)


@pytest.mark.parametrize(
    ("engine", "flags", "version", "capabilities", "reason"),
    [
        ("onnxruntime", AMX, "1.8.1", "BF16", "engine is onnxruntime"),
        (
            "auto", frozenset[str](), "1.8.1", "BF16",
            "this CPU has no matrix units (amx_bf16 in /proc/cpuinfo), with which OpenVINO "
            "computes it two to three times as fast",
        ),
        (
            "auto", AMX, "", "BF16",
            "onnxruntime-ep-openvino is not installed; run: pip install 'convserve[openvino]'",
        ),
        (
            "auto", AMX, "1.8.1", "",
            "onnxruntime-ep-openvino 1.8.1 offers nothing on this CPU: it is for those of Intel",
        ),
        ("openvino", frozenset[str](), "1.8.1", "FP32 INT8", "this CPU has no bfloat16"),
    ],
)  # fmt: skip
def test_bfloat16_that_is_computed_in_float32_says_why(
    engine: str,
    flags: frozenset[str],
    version: str,
    capabilities: str,
    reason: str,
    machine: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine(flags, version, capabilities)
    chosen(engine, PRECISION_BFLOAT16, tell=False)
    assert not caplog.records
    chosen(engine, PRECISION_BFLOAT16)
    assert [record.getMessage() for record in caplog.records] == [
        f"mnist/1 is of bfloat16 and computed in float32: {reason}"
    ]


@pytest.mark.parametrize(
    ("flags", "version", "precision", "message"),
    [
        (
            AMX,
            "",
            PRECISION_FLOAT32,
            "this CPU has matrix units (amx_bf16, amx_int8), which bu",
        ),
        (
            AMX,
            "",
            PRECISION_INT8,
            "this CPU has matrix units, which are not used for int8: onnx",
        ),
        (frozenset[str](), "1.8.1", PRECISION_FLOAT32, "OpenVINO is installed and not used: this"),
        (frozenset[str](), "", PRECISION_FLOAT32, ""),
        (frozenset[str](), "", PRECISION_INT8, ""),
    ],
)
def test_what_is_left_unused_is_logged_once(
    flags: frozenset[str],
    version: str,
    precision: Precision.ValueType,
    message: str,
    machine: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    machine(flags, version)
    for _ in range(2):
        assert not chosen("auto", precision)
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == (1 if message else 0)
    assert all(one.startswith(message) for one in found)


def test_engine_openvino_without_it_is_refused_with_the_remedy(
    machine: Callable[..., None], tmp_path: Path
) -> None:
    machine(AMX)
    expected = r"^engine openvino: onnxruntime-ep-openvino is not installed; run: pip install 'conv"
    with pytest.raises(EngineError, match=expected):
        choose_provider("auto", "openvino")
    with pytest.raises(EngineError, match=expected):
        load_engine(write_bundle(tmp_path), EngineOptions(engine="openvino"))
    with pytest.raises(EngineError, match="^engine: expected auto or onnxruntime with device cuda"):
        choose_provider("cuda", "openvino")


def test_bundle_that_openvino_refuses_is_for_onnx_runtime_unless_it_was_asked_for(
    machine: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> str:
        raise EngineError("not this one")

    machine(AMX, "1.8.1", "BF16")
    monkeypatch.setattr(openvino, "add_to", refuse)
    path = write_bundle(tmp_path, precision=PRECISION_BFLOAT16)
    assert load_engine(path, EngineOptions("cpu")).provider == CPU
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} runs on ONNX Runtime, as OpenVINO refuses it: not this one"
    ]
    with pytest.raises(EngineError, match="^not this one$"):
        load_engine(path, EngineOptions("cpu", engine="openvino"))


def test_flags_are_those_that_the_kernel_names(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16 amx_tile\nbugs\t\t: none\n\n")
    assert cpu_flags(file) == {"fpu", "amx_bf16", "amx_tile"}
    assert cpu_flags(tmp_path / "none") == frozenset()


# The plug-in


@pytest.fixture(scope="module")
def plug_in() -> None:
    """The plug-in, in this process, on this CPU."""
    if not openvino._version():
        pytest.skip("onnxruntime-ep-openvino is not installed; make test-openvino")
    if why := intel_cpu.pretend():
        pytest.skip(f"this CPU cannot pass as one of Intel's: {why}")
    assert openvino._fault() == ""


@pytest.fixture
def asked(plug_in: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What OpenVINO is asked for."""
    found: list[dict[str, str]] = []
    real = json.dumps

    def dumps(value: dict[str, dict[str, str]]) -> str:
        found.append(value["CPU"])
        return real(value)

    monkeypatch.setattr(openvino, "json", SimpleNamespace(dumps=dumps))
    return found


def loaded(path: Path, engine: str, allowance: ThreadAllowance | None = None) -> LoadedModel:
    model = load_model(path, EngineOptions("cpu", max_batch=8, engine=engine), allowance)
    assert isinstance(model, LoadedModel)
    return model


@pytest.mark.parametrize(
    ("precision", "hint", "bound"),
    [
        (PRECISION_FLOAT32, "f32", 1e-6),
        (PRECISION_INT8, "f32", 1e-6),
        (PRECISION_BFLOAT16, "bf16", 8e-2),
    ],
)
def test_openvino_computes_in_the_precision_of_the_bundle(
    precision: Precision.ValueType,
    hint: str,
    bound: float,
    tmp_path: Path,
    asked: list[dict[str, str]],
) -> None:
    path = write_bundle(tmp_path, precision=precision)
    model = loaded(path, "openvino")
    assert model.engine.provider == OPENVINO
    assert set(model.batch_s) == {1, 2, 4, 8}
    assert {one["INFERENCE_PRECISION_HINT"] for one in asked} == {hint}
    assert {one["INFERENCE_NUM_THREADS"] for one in asked} == {"1"}
    reference = loaded(path, "onnxruntime")
    assert reference.engine.provider == CPU
    for count in (1, 3, 8):
        images = np.stack([digit_of(number % 3) for number in range(count)])
        rows = model.engine.run([images[:1], images[1:]] if count > 1 else [images])
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, reference.engine.run([images]), atol=bound)


def test_lone_caller_has_more_threads(
    tmp_path: Path, asked: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convserve_server.engines.cpu._EXPENSIVE_S", 0.0)
    activity = EngineActivity(create(2), 0)
    model = loaded(write_bundle(tmp_path), "openvino", ThreadAllowance(2, frozenset(), activity))
    assert [one["INFERENCE_NUM_THREADS"] for one in asked] == ["1", "2"]
    assert {one["ENABLE_CPU_PINNING"] for one in asked} == {"NO"}
    assert model.engine.run([np.zeros((5, *SHAPE), np.uint8)]).shape[0] == 5


def test_what_is_not_a_bundle_runs_on_onnx_runtime(plug_in: None, tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.two_inputs())
    model = load_model(path, EngineOptions("cpu", max_batch=4, engine="openvino"))
    assert model.engine.provider == CPU


def test_memory_of_a_session_ends_with_it(tmp_path: Path, plug_in: None) -> None:
    path = write_bundle(tmp_path)
    images = np.zeros((8, *SHAPE), np.uint8)

    def resident() -> int:
        gc.collect()
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def load_some() -> None:
        options = EngineOptions("cpu", max_batch=8, engine="openvino")
        engines = [load_engine(path, options) for _ in range(5)]
        assert [len(engine.run([images])) for engine in engines] == [8] * 5

    load_some()
    before = resident()
    for _ in range(2):
        load_some()
    # Ten sessions that stayed would need 8 MiB.
    assert resident() - before < 4 * 2**10


def test_onnx_runtime_accepts_the_plug_in_once(plug_in: None) -> None:
    names = [device.ep_name for device in ort.get_ep_devices()]
    assert names.count(OPENVINO) == 1

"""OpenVINO for bundles on CPUs with matrix units, by a plug-in of ONNX Runtime.

Matrix units (Intel's AMX) multiply bfloat16 and int8, which ONNX Runtime's own CPU provider does
not use them for. The plug-in is a package of its own, onnxruntime-ep-openvino, and offers itself on
CPUs of Intel alone. It is loaded only where it may be used: that takes 13 MiB and its first session
28 more.

Sources: https://github.com/microsoft/onnxruntime/pull/31981 (on which CPUs it offers itself);
https://docs.openvino.ai/2026/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
"""

import importlib
import json
import logging
import threading
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime as ort

from convserve_protos.bundle_pb2 import PRECISION_BFLOAT16, PRECISION_INT8, Precision
from convserve_server.engines.base import EngineError

log = logging.getLogger(__name__)

PACKAGE = "onnxruntime-ep-openvino"
_MODULE = "onnxruntime_ep_openvino"
_CPUS = Path("/proc/cpuinfo")

#: What the CPU must have for OpenVINO to pay, by precision.
_UNITS = {PRECISION_BFLOAT16: "amx_bf16", PRECISION_INT8: "amx_int8"}
_NO_UNITS = "this CPU has no matrix units ({} in /proc/cpuinfo)"
_INSTALL = "pip install 'convserve[openvino]'"

_loading = threading.Lock()


def is_chosen(engine: str, precision: Precision.ValueType, model: object, *, tell: bool) -> bool:
    """Returns whether OpenVINO runs a bundle.

    Args:
        engine: as set: auto, onnxruntime or openvino.
        precision: of the bundle.
        model: as messages call it.
        tell: whether to log why a bundle of bfloat16 is not computed in it, and what is to be
            gained.

    Raises:
        EngineError: for engine openvino where it cannot be used.
    """
    if engine == "openvino":
        check()
        reason = "" if _computes_bfloat16() else "this CPU has no bfloat16"
    else:
        reason = f"engine is {engine}" if engine == "onnxruntime" else _why_not(precision)
    if reason and tell and precision == PRECISION_BFLOAT16:
        log.warning("%s is of bfloat16 and computed in float32: %s", model, reason)
    elif reason and tell and engine == "auto":
        _tell_once(precision)
    return engine == "openvino" or not reason


def check() -> None:
    """Checks that OpenVINO can be used here.

    Raises:
        EngineError: it cannot; says why, and what to do.
    """
    if fault := _fault():
        raise EngineError(f"engine openvino: {fault}")


def add_to(settings: ort.SessionOptions, precision: Precision.ValueType, threads: int) -> str:
    """Has a session use OpenVINO for all of its nodes; returns the execution provider's name.

    Args:
        settings: of the session.
        precision: of the bundle; what is not of bfloat16 is computed in float32, or int8 where the
            graph says so.
        threads: of the engine.

    Raises:
        EngineError: OpenVINO cannot be used here.
    """
    check()
    [device] = _devices()
    properties = {
        # Its default is bfloat16 wherever the CPU has it: 0.006 off for the digits.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == PRECISION_BFLOAT16 else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        # It knows nothing of other workers: each would keep its threads on the first CPUs.
        "ENABLE_CPU_PINNING": "NO",
    }
    settings.add_provider_for_devices([device], {"load_config": json.dumps({"CPU": properties})})
    # Without this a node that it lacks would run on another provider, in silence.
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    name: str = device.ep_name
    return name


def _why_not(precision: Precision.ValueType) -> str:
    """Returns why `auto` does not use OpenVINO for a precision; empty if it does."""
    unit = _UNITS.get(precision)
    if unit is None:
        return "it gains nothing"
    if unit not in cpu_flags():
        return (
            f"{_NO_UNITS.format(unit)}, with which OpenVINO computes it two to three times as fast"
        )
    return _fault()


@cache
def _tell_once(precision: Precision.ValueType) -> None:
    """Logs, once for each precision, what is left unused: the package, or the matrix units."""
    units = sorted({*_UNITS.values()} & cpu_flags())
    if units and precision in _UNITS:
        log.warning("this CPU has matrix units, which are not used for int8: %s", _fault())
    elif units:
        log.info(
            "this CPU has matrix units (%s), which bundles of float32 do not use: published with "
            "--precision bfloat16 they are computed two to three times as fast, with OpenVINO (%s)",
            ", ".join(units), _INSTALL,
        )  # fmt: skip
    elif _version():
        log.info(
            "OpenVINO is installed and not used: %s; --engine openvino uses it all the same",
            _NO_UNITS.format("amx_bf16, amx_int8"),
        )


@cache
def cpu_flags(cpus: Path = _CPUS) -> frozenset[str]:
    """Returns what the first CPU can do, as the kernel names it; empty where it does not say."""
    try:
        lines = cpus.read_text().splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(flags, "").split())


def _fault() -> str:
    """Returns why OpenVINO cannot be used here; empty if it can."""
    if not _version():
        return f"{PACKAGE} is not installed; run: {_INSTALL}"
    if not hasattr(ort, "register_execution_provider_library"):
        return f"onnxruntime {ort.__version__} loads no plug-ins; it needs 1.23 or newer"
    try:
        devices = _devices()
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own and std::exceptions
        return f"{PACKAGE} {_version()} cannot be loaded: {str(error).strip()}"
    if not devices:
        return f"{PACKAGE} {_version()} offers nothing on this CPU: it is for those of Intel"
    return ""


def _computes_bfloat16() -> bool:
    [device] = _devices()
    return "BF16" in device.ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split()


def _devices() -> list[Any]:
    """Returns OpenVINO's device for the CPU, alone, or nothing."""
    with _loading:
        return _register()


@cache
def _register() -> list[Any]:
    """Loads the plug-in, once in a process."""
    plug_in = importlib.import_module(_MODULE)
    ort.register_execution_provider_library(PACKAGE, plug_in.get_library_path())
    name = plug_in.get_ep_name()
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == name and device.ep_metadata.get("ov_device") == "CPU"
    ]


@cache
def _version() -> str:
    """Returns the version of the plug-in; empty if it is not installed."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return ""

"""From the file of a model to a model that may be served."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from convserve_bundle import external_data, graph_check, pixel_arithmetic
from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.distributions import known_of
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import Model
from convserve_bundle.manifest import check_manifest
from convserve_bundle.stability import Known
from convserve_protos.bundle_pb2 import (
    PRECISION_FLOAT32,
    PRECISION_UNSPECIFIED,
    Manifest,
    Precision,
)
from convserve_server.engines.base import (
    CPU,
    NOT_MEASURED,
    Engine,
    Loaded,
    LoadedModel,
    LoadedTensorModel,
)
from convserve_server.engines.cpu import ThreadAllowance
from convserve_server.engines.loader import (
    EngineOptions,
    load_engine,
    load_tensor_engine,
    metadata_of,
)
from convserve_server.engines.output_check import check_outputs, probes

log = logging.getLogger(__name__)

#: A file, or what it holds: what the loader accepts.
M = TypeVar("M", bound=Model)


def load_model(
    model: Model,
    options: EngineOptions,
    allowance: ThreadAllowance | None = None,
    batch_s: Mapping[int, float] = NOT_MEASURED,
) -> Loaded:
    """Loads and warms up a bundle, which is checked, or any other ONNX file.

    Args:
        model: its file, or what that holds.
        options: see loader.load_engine.
        allowance: see loader.load_engine.
        batch_s: seconds by size of batch, if they are known; see Engine.warm_up.

    Raises:
        BundleError: the file is not an ONNX file, has data outside its folder, is refused by
            graph_check, or is a bundle that does not fit its manifest.
        EngineError: the file is not a usable model, or the device cannot be had.
        OSError: the file cannot be read.
    """
    if isinstance(model, Path):
        external_data.check(model)
    graph_check.check(model)
    if MANIFEST_KEY in metadata_of(model):
        load = partial(load_engine, options=options, allowance=allowance)
        return load_bundle(model, load, batch_s)
    engine = load_tensor_engine(model, options, allowance)
    return LoadedTensorModel(engine, engine.warm_up(batch_s))


def load_bundle(
    model: M,
    load_engine: Callable[[M], Engine],
    batch_s: Mapping[int, float] = NOT_MEASURED,
) -> LoadedModel:
    """Loads, checks and warms up a bundle.

    Args:
        model: its file, or what that holds.
        load_engine: makes an engine of it; see loader.load_engine.
        batch_s: seconds by size of batch, if they are known; see Engine.warm_up.

    Raises:
        BundleError: the file has no manifest, one that does not fit the model, or its outputs are
            not what the manifest says.
        EngineError: the file is not a usable model, or the device cannot be had.
    """
    engine = load_engine(model)
    manifest = check_manifest(engine.metadata, engine.image_shape, engine.classes)
    batch_s = engine.warm_up(batch_s)
    images = probes(engine.image_shape)
    for first in range(0, len(images), engine.max_batch):
        check_outputs(manifest, engine.run([images[first : first + engine.max_batch]]))
    return LoadedModel(
        engine,
        tuple(manifest.labels),
        manifest.input.resize,
        manifest.SerializeToString(),
        batch_s,
        _advice(model, manifest.precision) if engine.provider == CPU else "",
        tuple(manifest.thresholds),
        _known(manifest),
    )


def _known(manifest: Manifest) -> Mapping[str, Known]:
    """Returns what a manifest says of the pictures of its training; it answers without, too."""
    try:
        return known_of(manifest.statistics)
    except BundleError as error:
        log.warning("%s: %s; its drift is not measured", manifest.name, error)
        return {}


def _advice(model: Model, precision: Precision.ValueType) -> str:
    """Returns how a bundle that was exported before can compute faster; empty if it cannot."""
    operators = pixel_arithmetic.operators_over_one(model)
    if not operators:
        return ""
    path = model if isinstance(model, Path) else model.path
    mended = (
        f"convserve-train convert {path.parent} --precision float32 publishes a version without "
        "it, whose answers are the same"
        if precision in (PRECISION_UNSPECIFIED, PRECISION_FLOAT32)
        else "convert its float32 version anew"
    )
    return (
        f"its graph is of an earlier release and slow: {', '.join(operators)} over a last axis of "
        f"1, about an eighth of the time; {mended}"
    )

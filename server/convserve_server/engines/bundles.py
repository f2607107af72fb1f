"""From the file of a bundle to a model that may be served."""

from collections.abc import Callable, Mapping
from pathlib import Path

from convserve_bundle.manifest import check_manifest
from convserve_server.engines.base import NOT_MEASURED, Engine, LoadedModel
from convserve_server.engines.output_check import check_outputs, probes


def load_bundle(
    path: Path,
    load_engine: Callable[[Path], Engine],
    batch_s: Mapping[int, float] = NOT_MEASURED,
) -> LoadedModel:
    """Loads, checks and warms up a model.

    Args:
        path: of the model file.
        load_engine: makes an engine of it; see loader.load_engine.
        batch_s: seconds by size of batch, if they are known; see Engine.warm_up.

    Raises:
        BundleError: the file has no manifest, one that does not fit the model, or its outputs are
            not what the manifest says.
        EngineError: the file is not a usable model, or the device cannot be had.
    """
    engine = load_engine(path)
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
    )

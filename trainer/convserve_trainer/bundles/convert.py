"""Publishing a trained net in another precision: what is needed is its bundle and its data."""

import functools
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import onnx

from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.errors import BundleError
from convserve_bundle.folder import list_versions
from convserve_bundle.signing import Signer
from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_FLOAT32,
    PRECISION_TENSOR_FLOAT_32,
    Manifest,
)
from convserve_store.bundles import BundleStore
from convserve_trainer.bundles import bundle, evaluate, manifests, picture_statistics
from convserve_trainer.bundles.published import PublishTarget
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.evaluation import predict
from convserve_trainer.export import conversion, layout, precisions
from convserve_trainer.export.conversion import ExportOptions
from convserve_trainer.export.parity import Reference

#: The file of all three is float32, and says what Keras says.
SOURCES = (PRECISION_FLOAT32, PRECISION_TENSOR_FLOAT_32, PRECISION_BFLOAT16)
MAKERS = ("onnx", "onnxruntime")  # whose versions are those of the conversion


def convert(
    path: Path,
    options: ExportOptions,
    load: Callable[[Manifest], Data],
    out: TextIO,
    *,
    models: Path | None = None,
    name: str | None = None,
    version: int | None = None,
    min_accuracy: float | None = None,
    signer: Signer | None = None,
    store: BundleStore | None = None,
) -> str:
    """Publishes the net of a bundle in another precision.

    Args:
        path: of a bundle of float32, tf32 or bfloat16, as `bundle.find` takes it.
        options: what it is made into.
        load: returns the data that a net was trained on.
        out: takes what a user wants to see.
        models: folder that it is published in; None for the bundle's.
        name: of the model; None for the bundle's.
        version: None for the next free one.
        min_accuracy: least share of held-out pictures that are right, 0 to 1; None for that of the
            bundle's recipe.
        signer: who signs it; None for nobody.
        store: that it is published in instead, on object storage; None for a folder.

    Returns:
        The path of the published model.onnx, or the URL of its version.

    Raises:
        TrainerError: anything a user can mend; nothing was published.
    """
    file, manifest = evaluate.check(path)
    if precisions.read_precision(manifest.precision) not in SOURCES:
        raise BundleError(
            f"{file}: precision: expected float32, tf32 or bfloat16, got "
            f"{precisions.name(manifest.precision)}"
        )
    target = PublishTarget(
        models or (Path() if store else _models(file)),
        manifest.name if name is None else name,
        version,
        signer,
        store,
    )
    manifests.check_name(target.name)
    floor = _floor(manifest, file) if min_accuracy is None else min_accuracy
    if not 0 <= floor <= 1:
        raise UsageError(f"--min-accuracy: expected 0 to 1, got {floor}")
    target.check()
    data = load(manifest)
    if manifest.training.dataset_sha256 != data.sha256:
        raise DataError(
            f"these are not the data that {file} was trained on: held-out pictures among them may "
            "have been trained on; name its data with --data and --validation-split"
        )
    net = bundle.read(file)[0]
    [earlier] = [entry.value for entry in net.metadata_props if entry.key == MANIFEST_KEY]
    net.ClearField("metadata_props")
    # As the net was published: that is what must say the same.
    reference = _reference(net, manifest, data)
    layout.reshape_first(net)
    conversion.print_score(reference, data, out)
    candidates = conversion.candidates(net, options, data, manifest.training.seed)
    comparison = conversion.check(candidates, options, data, reference, floor, out)
    manifest.name = target.name
    if not manifest.statistics.HasField("brightness"):  # it is older than statistics
        manifest.statistics.CopyFrom(picture_statistics.of_pictures(data.train))
    manifests.state(manifest, comparison, options.precision, options.calibrated_on(data))
    versions = {package: importlib.metadata.version(package) for package in MAKERS}
    manifest.training.versions.update(versions)
    made = candidates[0].model
    manifests.attach(manifest, made, earlier)
    content = made.SerializeToString()
    published = target.publish(content)
    size = f"{len(content):,} bytes, {file} has {file.stat().st_size:,}"
    print(f"published {published} ({size})", file=out, flush=True)
    return published


def _models(file: Path) -> Path:
    """Returns the models folder that a bundle lies in."""
    version = file.resolve().parent
    if version.name not in map(str, list_versions(version.parent)):
        raise UsageError(f"{file} lies in no models folder; name one with --models")
    return version.parent.parent


def _reference(net: onnx.ModelProto, manifest: Manifest, data: Data) -> Reference:
    answer = functools.partial(predict.by_onnxruntime, predict.session(net.SerializeToString()))
    answers = predict.answer(answer, data.held_out)
    return Reference("float32", answers, evaluate.thresholds_of(manifest))


def _floor(manifest: Manifest, file: Path) -> float:
    """Returns the accuracy floor that a bundle was published with."""
    try:
        return float(json.loads(manifest.training.recipe_json)["min_accuracy"])
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{file}: damaged recipe: {error!r}") from error

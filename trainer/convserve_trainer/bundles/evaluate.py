"""How a published bundle does on held-out pictures, through ONNX Runtime."""

from functools import partial
from pathlib import Path

import numpy as np

from convserve_bundle.contract import BATCH_AXIS, INPUT, OUTPUT
from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle
from convserve_bundle.manifest import is_softmax
from convserve_imaging import METHODS
from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_DIGITS,
    IMAGE_KIND_PHOTO,
    IMAGE_KIND_PIXELS,
    ImageKind,
    Manifest,
)
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets.pictures import Pictures
from convserve_trainer.evaluation import corruptions, judged, predict
from convserve_trainer.evaluation.judged import AnyJudged
from convserve_trainer.evaluation.score import Thresholds
from convserve_trainer.evaluation.traits import Watch
from convserve_trainer.export import contract

KINDS = (IMAGE_KIND_DIGITS, IMAGE_KIND_PHOTO, IMAGE_KIND_PIXELS)


def judge(file: Path, manifest: Manifest, pictures: Pictures) -> AnyJudged:
    """Returns the figures of a bundle, and pictures that it is wrong about.

    Args:
        file: model.onnx, one that `check` has let pass.
        manifest: of it.
        pictures: what it is judged on, all of them.

    Raises:
        BundleError: ONNX Runtime refuses it.
        DataError: too many pictures cannot be read.
    """
    net = partial(predict.by_onnxruntime, predict.session(file.read_bytes()))
    watch = Watch(net)
    found = predict.answer(watch, pictures)
    thresholds = thresholds_of(manifest)
    labels, traits = list(manifest.labels), watch.traits(pictures)
    if thresholds is not None:
        return judged.judge_labels(labels, found, pictures, traits, thresholds)
    changed = corruptions.corrupted(net, pictures, manifest.input.kind)
    return judged.judge(labels, found, pictures, traits, changed)


def thresholds_of(manifest: Manifest) -> Thresholds | None:
    """Returns the thresholds of a bundle, float32 [K]; None where pictures have one label."""
    return None if is_softmax(manifest) else np.array(manifest.thresholds, np.float32)


def answers(file: Path, pictures: Pictures) -> predict.Answers:
    """Returns what a bundle says, and what is right.

    Args:
        file: model.onnx, one that `check` has let pass.
        pictures: to evaluate, in their order.

    Raises:
        BundleError: ONNX Runtime refuses it.
        DataError: too many pictures cannot be read.
    """
    session = predict.session(file.read_bytes())
    return predict.answer(partial(predict.by_onnxruntime, session), pictures)


def check(path: Path) -> tuple[Path, Manifest]:
    """Returns the path of a bundle's model.onnx, and its manifest.

    Args:
        path: of model.onnx, its version folder, or the model's folder (the newest version).

    Raises:
        BundleError: there is none at this path, or its graph is not what its manifest says.
    """
    file = find_bundle(path)
    model, manifest = bundle.read(file)
    spec = manifest.input
    if spec.kind not in KINDS:
        known = " or ".join(map(ImageKind.Name, KINDS))
        raise BundleError(f"{file}: input.kind: expected {known}, got {ImageKind.Name(spec.kind)}")
    if spec.resize not in METHODS:
        raise BundleError(f"{file}: input.resize: expected a known method, got {spec.resize!r}")
    found = [contract.describe(value) for value in (*model.graph.input, *model.graph.output)]
    shape = f"{spec.height}, {spec.width}, {spec.channels}"
    expected = [
        f"{INPUT}: uint8 [{BATCH_AXIS}, {shape}]",
        f"{OUTPUT}: float32 [{BATCH_AXIS}, {len(manifest.labels)}]",
    ]
    if found != expected:
        raise BundleError(f"{file}: graph: expected {expected}, got {found}")
    return file, manifest

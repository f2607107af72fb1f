"""The models that a server has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from convserve.errors import ModelNotFound
from convserve_protos import bundle_pb2, classifier_pb2

_KINDS = {
    bundle_pb2.IMAGE_KIND_DIGITS: "digits",
    bundle_pb2.IMAGE_KIND_PHOTO: "photo",
    bundle_pb2.IMAGE_KIND_PIXELS: "pixels",
}
_PRECISIONS = {
    bundle_pb2.PRECISION_UNSPECIFIED: "float32",
    bundle_pb2.PRECISION_FLOAT32: "float32",
    bundle_pb2.PRECISION_TENSOR_FLOAT_32: "tf32",
    bundle_pb2.PRECISION_FLOAT16: "float16",
    bundle_pb2.PRECISION_INT8: "int8",
    bundle_pb2.PRECISION_BFLOAT16: "bfloat16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One loaded version of a model.

    Attributes:
        name: Name of the model.
        version: Its version.
        labels: Labels in the order of the columns of its probabilities.
        input_shape: (H, W, C) of one image, uint8.
        kind: What it was trained on: "digits", "photo", or "pixels", which are used as they are;
            "" if it does not say.
        precision: What it is computed in: "float32", "float16", "int8"; "tf32" or
            "bfloat16", float32 that CUDA, or a CPU with matrix units, may round; "" if this client
            does not know it.
        metrics: Measured on the held-out set: "accuracy" (0 to 1), "loss" (nats).
        parameters: Trainable parameters.
        created: When it was published, UTC; None if it does not say.
        execution_provider: ONNX Runtime's provider that runs it: "CPUExecutionProvider",
            "OpenVINOExecutionProvider".
        manifest: All that the bundle says of itself.
        version_labels: Labels that the operator has given to the version, such as "stable", by
            which calls may ask for it.
        default: Whether it answers calls that ask for no version; servers of 0.1.0 do not say.
        thresholds: Where images have several labels, 0 to 1, in the order of the labels: an image
            has each label whose probability is this or more. Empty for other models.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    input_shape: tuple[int, int, int]
    kind: str
    precision: str
    metrics: Mapping[str, float]
    parameters: int
    created: datetime | None
    execution_provider: str
    manifest: bundle_pb2.Manifest = field(repr=False)
    version_labels: tuple[str, ...] = ()
    default: bool = False
    thresholds: tuple[float, ...] = ()

    @property
    def file_formats(self) -> tuple[str, ...]:
        """Formats of the files that it accepts: "JPEG", "PNG", "WebP", "GIF" (its first frame).

        JPEG alone where this client does not know how the model reads files.
        """
        # Here: the library itself is imported without it.
        from convserve_imaging.file_formats import FILE_FORMATS

        known = FILE_FORMATS.get(self.manifest.input.resize)
        return known or (("JPEG", "PNG") if self.kind in ("digits", "pixels") else ("JPEG",))


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedVersion:
    """A version in the server's models folder that is not served.

    Attributes:
        name: Name of the model.
        version: Its version.
        reason: Why, for people.
    """

    name: str
    version: int
    reason: str


def read_refused(reply: classifier_pb2.ListModelsResponse) -> list[RefusedVersion]:
    """Returns what is refused by a reply, in its order: by name, the newest version first."""
    return [
        RefusedVersion(name=one.name, version=one.version, reason=one.reason)
        for one in reply.refused
    ]


def read_models(reply: classifier_pb2.ListModelsResponse) -> list[ModelInfo]:
    """Returns the models of a reply, in its order: by name, the newest version first."""
    return [_read_model(model) for model in reply.models]


def is_asked(model: ModelInfo, version: int | str | None) -> bool:
    """Returns whether a version of a model is the one of a number or label; None: any."""
    if isinstance(version, str):
        return version in model.version_labels
    return version in (None, model.version)


def find_model(models: Sequence[ModelInfo], name: str, version: int | str | None) -> ModelInfo:
    """Returns what the server says of a model.

    Args:
        models: All that are loaded, the newest version of each first.
        name: Its name.
        version: Its version, or a label; None: the one that answers calls that ask for none.

    Raises:
        ModelNotFound: It is not loaded.
    """
    asked = [model for model in models if model.name == name and is_asked(model, version)]
    if asked:
        return by_default(asked)
    wanted = name if version is None else f"{name}/{version}"
    there = ", ".join(f"{model.name}/{model.version}" for model in models)
    raise ModelNotFound(f"model {wanted} is not loaded; there is {there or 'none'}")


def by_default(versions: Sequence[ModelInfo]) -> ModelInfo:
    """Returns the version that answers calls that ask for none, or else the first one.

    Args:
        versions: Of one model, the newest first; at least one.
    """
    return next((one for one in versions if one.default), versions[0])


def _read_model(model: classifier_pb2.Model) -> ModelInfo:
    manifest = model.manifest
    spec = manifest.input
    return ModelInfo(
        name=model.name,
        version=model.version,
        labels=tuple(manifest.labels),
        input_shape=(spec.height, spec.width, spec.channels),
        kind=_KINDS.get(spec.kind, ""),
        precision=_PRECISIONS.get(manifest.precision, ""),
        metrics=dict(manifest.metrics),
        parameters=manifest.parameters,
        created=_read_time(manifest),
        execution_provider=model.execution_provider,
        manifest=manifest,
        version_labels=tuple(model.version_labels),
        default=model.default,
        thresholds=tuple(manifest.thresholds),
    )


def _read_time(manifest: bundle_pb2.Manifest) -> datetime | None:
    return manifest.created.ToDatetime(UTC) if manifest.HasField("created") else None

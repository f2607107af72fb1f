"""What clients may know of models: metadata, configuration, statistics."""

import json
from collections.abc import Iterator, Mapping, Sequence

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.administration import VersionState, VersionStatus
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import fitting
from convserve_server.engines.signatures import TensorSpec
from convserve_server.protocols.numbers import shortest
from convserve_server.telemetry.statistics import Durations, VersionStatistics

#: Form of the files and what runs them, by the names of Triton.
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"

#: Of a version that is refused, bytes.
_MAX_REASON = 1000

_TYPES = {
    "BOOL": pb.TYPE_BOOL,
    "UINT8": pb.TYPE_UINT8,
    "UINT16": pb.TYPE_UINT16,
    "UINT32": pb.TYPE_UINT32,
    "UINT64": pb.TYPE_UINT64,
    "INT8": pb.TYPE_INT8,
    "INT16": pb.TYPE_INT16,
    "INT32": pb.TYPE_INT32,
    "INT64": pb.TYPE_INT64,
    "FP16": pb.TYPE_FP16,
    "FP32": pb.TYPE_FP32,
    "FP64": pb.TYPE_FP64,
    "BYTES": pb.TYPE_STRING,
}

#: The states of Triton. An idle version is loaded by the next call for it, so it answers.
_STATES = {
    VersionState.FOUND: "UNAVAILABLE",
    VersionState.LOADING: "LOADING",
    VersionState.SERVED: "READY",
    VersionState.IDLE: "READY",
    VersionState.RETIRING: "UNLOADING",
    VersionState.REFUSED: "UNAVAILABLE",
    VersionState.ABSENT: "UNAVAILABLE",
}
_READY = "READY"


def metadata_of(
    model: ModelDescription, versions: Sequence[int], labels: Mapping[str, int]
) -> pb.ModelMetadataResponse:
    """Returns what ModelMetadata answers.

    Args:
        model: the version that is asked for.
        versions: of the model that are served, newest first.
        labels: the version that each label of the model names.
    """
    properties = {"execution_provider": model.provider}
    if model.labels:
        properties["labels"] = json.dumps(model.labels, ensure_ascii=False)
        properties["output"] = "multi_label" if model.thresholds else "softmax"
    if model.thresholds:
        properties["thresholds"] = json.dumps(shortest(model.thresholds))
    if labels:
        properties["version_labels"] = json.dumps(dict(sorted(labels.items())))
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=map(str, versions),
        platform=PLATFORM,
        inputs=map(_tensor, model.signature.inputs),
        outputs=map(_tensor, model.signature.outputs),
        properties=properties,
    )


def config_of(model: ModelDescription, max_rows: int) -> pb.ModelConfig:
    """Returns what ModelConfig answers.

    Args:
        model: the version that is asked for.
        max_rows: most rows in one request. Clients read max_batch_size as that limit; how many
            rows the engine runs at a time is our own affair.
    """
    batched = model.signature.batched
    first = 1 if batched else 0
    config = pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=max_rows if batched else 0,
        input=[
            pb.ModelInput(name=one.name, data_type=_TYPES[one.datatype], dims=one.shape[first:])
            for one in model.signature.inputs
        ],
        output=[
            pb.ModelOutput(name=one.name, data_type=_TYPES[one.datatype], dims=one.shape[first:])
            for one in model.signature.outputs
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    if batched:
        config.dynamic_batching.SetInParent()
    return config


def statistics_of(one: VersionStatistics) -> pb.ModelStatistics:
    """Returns what ModelStatistics answers for a version.

    The three compute counts are one number, as Triton's are: perf_analyzer ends where they differ.
    So compute_input counts all requests, also those that had nothing to decode.
    """
    return pb.ModelStatistics(
        name=one.name,
        version=str(one.version),
        last_inference=one.last_ms,
        inference_count=one.rows,
        execution_count=one.batches,
        inference_stats=pb.InferStatistics(
            success=_duration(one.success),
            fail=_duration(one.fail),
            queue=_duration(one.queue),
            compute_input=pb.StatisticDuration(count=one.compute.count, ns=one.decode.ns),
            compute_infer=_duration(one.compute),
            compute_output=pb.StatisticDuration(count=one.compute.count),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=pb.StatisticDuration(count=times.count),
                compute_infer=_duration(times),
                compute_output=pb.StatisticDuration(count=times.count),
            )
            for size, times in sorted(one.by_size.items())
        ],
    )


def index_of(statuses: Sequence[VersionStatus], ready: bool) -> pb.RepositoryIndexResponse:
    """Returns what RepositoryIndex answers.

    Args:
        statuses: of all versions.
        ready: only those that are served.
    """
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=one.name,
                version=str(one.version),
                state=_STATES[one.state],
                reason=fitting(one.reason, _MAX_REASON),
            )
            for one in statuses
            if not ready or _STATES[one.state] == _READY
        ]
    )


def statuses_of(
    models: Sequence[ModelDescription], refused: Mapping[tuple[str, int], str]
) -> list[VersionStatus]:
    """Returns how far the versions have come that this process knows of.

    Args:
        models: that can be asked for.
        refused: the versions that cannot, and why, by name and version.
    """
    return sorted(_statuses(models, refused), key=lambda one: (one.name, -one.version))


def _statuses(
    models: Sequence[ModelDescription], refused: Mapping[tuple[str, int], str]
) -> Iterator[VersionStatus]:
    for model in models:
        yield VersionStatus(model.name, model.version, VersionState.SERVED)
    for (name, version), reason in refused.items():
        yield VersionStatus(name, version, VersionState.REFUSED, reason)


def _tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def _duration(durations: Durations) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=durations.count, ns=durations.ns)

"""The names of all metrics, and what they mean; docs/metrics.md has the same table."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as on the page; of a histogram without _bucket, _sum, _count.
        kind: of metric.
        labels: of its series.
        help: what it is.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


_VERSION = ("model", "version")

CALLS = Metric(
    "convserve_calls_total",
    "counter",
    ("method", *_VERSION, "code"),
    "Calls that are over, by the path of the method and the name of gRPC's code. A stream is a "
    "call, and so is each request on it. The model is empty where none was to answer. Those that "
    "a guard refuses have the method (other).",
)
IMAGES = Metric(
    "convserve_images_total", "counter", _VERSION, "Images, or rows of tensors, that were computed."
)
ENGINE_SECONDS = Metric(
    "convserve_engine_seconds_total",
    "counter",
    _VERSION,
    "Time that engines have run batches, of all workers.",
)
REFUSED = Metric(
    "convserve_refused_total",
    "counter",
    ("reason",),
    "Calls that were refused before anything was computed, by the reason in the error.",
)
REFUSED_CONNECTIONS = Metric(
    "convserve_connections_refused_total",
    "counter",
    (),
    "Clients that guards did not let in: more than max_connections, or TLS that failed.",
)
EXPIRED = Metric(
    "convserve_expired_total",
    "counter",
    ("stage",),
    "Calls that left a queue without an answer, since their deadline had passed or would have: "
    "of files to decode, or of a batch.",
)
CANCELLED = Metric(
    "convserve_cancelled_total", "counter", (), "Calls and streams whose caller went away."
)
RESTARTS = Metric(
    "convserve_worker_restarts_total",
    "counter",
    ("worker",),
    "Ends of a worker that nobody had asked for; another one is started.",
)
CALL_SECONDS = Metric(
    "convserve_call_seconds",
    "histogram",
    _VERSION,
    "Time of calls that a model has answered, from their arrival in the server to their answer.",
)
QUEUE_SECONDS = Metric(
    "convserve_queue_seconds",
    "histogram",
    _VERSION,
    "Of it, waiting for the engine.",
)
DECODE_SECONDS = Metric(
    "convserve_decode_seconds",
    "histogram",
    _VERSION,
    "Time of decoding all files of a call, from the start of the first to the end of the last.",
)
COMPUTE_SECONDS = Metric(
    "convserve_compute_seconds",
    "histogram",
    _VERSION,
    "Time in the engine of each call, which is that of its batches.",
)
BATCH_IMAGES = Metric(
    "convserve_batch_images", "histogram", _VERSION, "Sizes of batches, images or rows."
)
QUEUE_IMAGES = Metric(
    "convserve_queue_images",
    "gauge",
    _VERSION,
    "Images that wait for the engine, or to be decoded for it, in all workers.",
)
QUEUE_WORK = Metric(
    "convserve_queue_work_seconds",
    "gauge",
    _VERSION,
    "Time that the engines of all workers need for these, by the measured times of batches: the "
    "sum over the workers.",
)
IN_FLIGHT = Metric(
    "convserve_calls_in_flight", "gauge", (), "Calls that are being answered; no streams."
)
STATE = Metric(
    "convserve_model_state",
    "gauge",
    (*_VERSION, "state"),
    "1 for the state that a model version is in: found, loading, served, idle, retiring, refused, "
    "absent.",
)
LOAD_SECONDS = Metric(
    "convserve_model_load_seconds",
    "gauge",
    _VERSION,
    "Time that a worker took to load and warm up the version, the last time.",
)
ENGINE_MEMORY = Metric(
    "convserve_engine_memory_bytes",
    "gauge",
    _VERSION,
    "Memory by which a worker grew when it loaded the version, the last time; not that of a GPU.",
)
PROCESS_MEMORY = Metric(
    "convserve_process_memory_bytes", "gauge", ("process",), "Resident memory of each process."
)
WORKERS = Metric(
    "convserve_workers", "gauge", ("state",), "Workers that accept calls, and that do not yet."
)
STORE_UP = Metric(
    "convserve_store_up",
    "gauge",
    (),
    "1 if the object storage of the models answered the last time that it was asked, else 0.",
)
STORE_ANSWERED = Metric(
    "convserve_store_answered_timestamp_seconds",
    "gauge",
    (),
    "When the object storage of the models last answered, in seconds since 1970.",
)
IN_OTHER = Metric(
    "convserve_models_in_other",
    "gauge",
    (),
    "Model versions without series of their own, counted together as the model (other).",
)
DRIFT = Metric(
    "convserve_model_drift_psi",
    "gauge",
    (*_VERSION, "statistic"),
    "How far the images of the last hour that were sampled are from those of the training: the "
    "population stability index of their brightness, contrast, size or confidence.",
)
DRIFT_BY_LUCK = Metric(
    "convserve_model_drift_luck_psi",
    "gauge",
    (*_VERSION, "statistic"),
    "What that index hardly ever reaches for so many images that are alike: once in 400 times.",
)
SAMPLED = Metric(
    "convserve_sampled_images",
    "histogram",
    (*_VERSION, "statistic"),
    "Images that were sampled, by their brightness, contrast, size or confidence. The buckets are "
    "the bins of the version's manifest.",
)
BUILD = Metric(
    "convserve_build_info",
    "info",
    ("version", "python", "onnxruntime", "front", "provider"),
    "Versions of what serves; the provider is that of the model loaded last.",
)
SETTINGS = Metric(
    "convserve_settings_info",
    "info",
    (
        "workers", "engine_threads", "decode_threads", "device", "max_batch", "max_delay_ms",
        "max_queue", "tls", "keys",
    ),
    "Settings of the server, with sizes chosen; tables of single models are not in it.",
)  # fmt: skip

#: All of them.
METRICS = (
    CALLS, IMAGES, ENGINE_SECONDS, REFUSED, REFUSED_CONNECTIONS, EXPIRED, CANCELLED, RESTARTS,
    CALL_SECONDS, QUEUE_SECONDS, DECODE_SECONDS, COMPUTE_SECONDS, BATCH_IMAGES, QUEUE_IMAGES,
    QUEUE_WORK, IN_FLIGHT, STATE, LOAD_SECONDS, ENGINE_MEMORY, PROCESS_MEMORY, WORKERS, STORE_UP,
    STORE_ANSWERED, IN_OTHER, DRIFT, DRIFT_BY_LUCK, SAMPLED, BUILD, SETTINGS,
)  # fmt: skip

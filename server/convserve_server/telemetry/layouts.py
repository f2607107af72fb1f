"""What is counted: the tables that each process has in the memory that all share."""

from convserve_bundle.stability import BINS, MEASURES
from convserve_server.telemetry.slab import Field, Layout, TableLayout

#: Bounds of the histograms of times, s: 1, 2, 3, 5 in each decade from 50 µs to 30 s.
BOUNDS = (
    0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05,
    0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0,
)  # fmt: skip
#: Numbers of such a histogram: one for each bound, and one for what is beyond all of them.
BUCKETS = len(BOUNDS) + 1

#: Bounds of the histogram of batch sizes: powers of two.
SIZE_BOUNDS = tuple(2**power for power in range(13))
SIZE_BUCKETS = len(SIZE_BOUNDS) + 1


def size_bucket(images: int) -> int:
    """Returns the index of the bucket of a batch size."""
    return min(SIZE_BUCKETS - 1, (images - 1).bit_length())


#: Batch sizes of a version that are counted each by itself; the first ones that it has.
SIZES = 64

#: In place of what has no row of its own, and of what is not known: nothing real has this name.
OTHER = "(other)"

#: Model versions, methods and reasons that are counted each by itself.
VERSIONS = 512
_CALLS = 4096
_REASONS = 64
#: Rows for calls that find none: one for each code.
_CODES = 20

#: By model version: "NAME/VERSION". One line more is one number more.
VERSION = Layout(
    [
        Field("rows"),
        Field("queue_s", seconds=True),
        Field("compute_s", seconds=True),
        Field("whole_s", seconds=True),
        # time.monotonic(), which all processes of a machine share.
        Field("last", seconds=True),
        Field("failed"),
        Field("failed_s", seconds=True),
        Field("decoded"),
        Field("decode_s", seconds=True),
        # Histograms; their sums are above, and requests are as many as are in that of the queue.
        Field("queue", words=BUCKETS),
        Field("compute", words=BUCKETS),
        Field("decode", words=BUCKETS),
        # How it is now: what waits, images and seconds of the engine.
        Field("waiting", gauge=True),
        Field("waiting_s", seconds=True, gauge=True),
        # The sizes that are counted, 0 behind the last one; then batches by size, and what they
        # took, where the last number is for all other sizes; and the histogram of those.
        Field("sizes", words=SIZES),
        Field("batches", words=SIZES + 1),
        Field("batches_s", words=SIZES + 1, seconds=True),
        Field("other_sizes", words=SIZE_BUCKETS),
    ]
)

#: By method, model version and code of the status, with tabs between them.
CALL = Layout([Field("times", words=BUCKETS), Field("times_s", seconds=True)])

#: By reason.
REASON = Layout([Field("refused")])

#: Of the process.
PROCESS = Layout(
    [
        Field("expired_decode"),
        Field("expired_batch"),
        Field("refused_connections"),
        Field("in_flight", gauge=True),
        # Versions that are counted together.
        Field("in_other", gauge=True),
    ]
)

#: Bins of a distribution, and parts of the window of sampled images.
MOST_BINS, PARTS = BINS + 2, 12

#: Of the sampled images of a model version: "NAME/VERSION".
IMAGES = Layout(
    [
        # The number of the time that each part is of, from 1 on; 0: nothing is in it.
        Field("parts", words=PARTS),
        *(
            field
            for name in MEASURES
            for field in (
                # What its net knows: bins, 0 if that is not known; bounds between them; counts.
                Field(f"{name}_bins"),
                Field(f"{name}_bounds", words=MOST_BINS - 1, seconds=True),
                Field(f"{name}_known", words=MOST_BINS),
                Field(f"{name}_counts", words=MOST_BINS),
                Field(f"{name}_sum", seconds=True),
                Field(f"{name}_parts", words=PARTS * MOST_BINS),
            )
        ),
    ]
)

#: A model's name and version; see convserve_bundle.contract.
_VERSION_BYTES = 64 + 1 + 18
_METHOD_BYTES = 120

TABLES = {
    "versions": TableLayout(VERSIONS, 1, _VERSION_BYTES, VERSION),
    "calls": TableLayout(_CALLS, _CODES, _METHOD_BYTES + 1 + _VERSION_BYTES + 1 + 3, CALL),
    "reasons": TableLayout(_REASONS, 1, _METHOD_BYTES, REASON),
    "images": TableLayout(VERSIONS, 0, _VERSION_BYTES, IMAGES),
    "process": TableLayout(1, 0, 8, PROCESS),
}

#: Names of gRPC's codes, by their numbers. Source: google/rpc/code.proto.
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
CANCELLED = CODES.index("CANCELLED")

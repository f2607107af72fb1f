"""How large a server is on this machine, or in this container: by its CPUs and by its memory.

On CPU one worker for each CPU, each with one engine thread: two processes share the work of the
front, which one cannot (the GIL), and small batches lose more by waking a second thread than it
computes. Fewer workers get more threads each, which suits a lone caller of large batches: its one
connection is with one worker. On CUDA the engine needs no CPU, but every worker has its own copy
of the models on the device: one for four CPUs.

Of the memory, the supervisor and the libraries that all share take SHARED_BYTES, and each worker
at rest WORKER_BYTES. There are only so many workers that each has ROOM_BYTES beyond. What is left,
divided by the workers, is what each has to spare. The second session of dear models, _WIDE_BYTES,
is made only where three times that is to spare. The rest is a worker's room for requests, at least
ROOM_BYTES:

- an eighth for decoders, divided by the decode threads: 16 to 256 MiB for one picture file of
  any model. There are no more threads than can have the least;
- a sixteenth for files that wait to be decoded, and as much for pixels that wait for the engine of
  each model version: 4 to 256 MiB. While a request waits it is in memory two or three times: as it
  came, as it was read, and as it was decoded;
- a sixteenth for what all streams hold together, 4 to 64 MiB: requests that are not answered, and
  answers that their clients do not read;
- an eighth is the largest message, 8 to 16 MiB;
- the rest is for messages that are being received, and for batches.

With less than _PLENTY_BYTES to spare, malloc is told to keep nothing, and batches are shorter. With
4.2 GiB a worker all is at its most, and more memory changes nothing. What a user has set is kept.
docs/performance.md has the measurements.
"""

import dataclasses
import math
from collections.abc import Sequence
from importlib import metadata

from convserve_server.config import Settings

MIB = 2**20

#: The supervisor, and the libraries' files that all processes map.
SHARED_BYTES = 48 * MIB
#: One worker at rest, with a photo net.
WORKER_BYTES = 160 * MIB
#: A worker with less beyond that for requests is not worth starting.
ROOM_BYTES = 64 * MIB
#: The second session, with threads on all CPUs.
_WIDE_BYTES = 64 * MIB

#: For one picture. The least takes progressive ones of 5 megapixels, and PNGs of 4 in colour.
_LEAST_DECODER, _MOST_DECODER = 16 * MIB, 256 * MIB
#: The least takes what telephones make of 12 megapixels.
_LEAST_MESSAGE, _MOST_MESSAGE = 8 * MIB, 16 * MIB
_LEAST_QUEUE, _MOST_QUEUE = 4 * MIB, 256 * MIB
_LEAST_STREAMS, _MOST_STREAMS = 4 * MIB, 64 * MIB

#: What a worker has beyond WORKER_BYTES where nothing need be saved.
_PLENTY_BYTES = 512 * MIB

#: Longest batch on the CPU, s, by the time of a single image; others wait meanwhile.
_BATCH_S = 0.06

#: Threads of one engine beyond which a single image gains nothing.
_MOST_WIDE = 8


def choose_sizes(settings: Settings, cpus: float, memory: float = math.inf) -> Settings:
    """Fill in what was left to us; see above for the rule.

    Args:
        settings: as given.
        cpus: that we may use, quotas counted.
        memory: bytes that we may use.

    Returns: settings with workers, threads, and bytes for queues and decoders.
    """
    share = 4 if settings.device != "cpu" and has_cuda_package() else 1
    fitting = max(1.0, (memory - SHARED_BYTES) / (WORKER_BYTES + ROOM_BYTES))
    workers = settings.workers or int(min(max(1, int(cpus) // share), fitting))
    threads = max(1, int(cpus) // workers)
    sized = dataclasses.replace(
        settings, workers=workers, engine_threads=settings.engine_threads or threads
    )
    wide = workers > 1 and choose_wide(sized, settings, cpus, memory) > sized.engine_threads
    room = _room(sized, memory) - (_WIDE_BYTES if wide else 0)
    decode_threads = settings.decode_threads or int(
        max(1.0, min(threads, room / 8 / _LEAST_DECODER))
    )
    decoder = _within(room / 8 / decode_threads, _LEAST_DECODER, _MOST_DECODER)
    queue = _within(room / 16, _LEAST_QUEUE, _MOST_QUEUE)
    return dataclasses.replace(
        sized,
        decode_threads=decode_threads,
        max_message_bytes=settings.max_message_bytes
        or _within(room / 8, _LEAST_MESSAGE, _MOST_MESSAGE),
        max_decoder_bytes=settings.max_decoder_bytes or decoder,
        max_queue_bytes=settings.max_queue_bytes or queue,
        max_stream_bytes=settings.max_stream_bytes
        or _within(room / 16, _LEAST_STREAMS, _MOST_STREAMS),
    )


def choose_wide(settings: Settings, given: Settings, cpus: float, memory: float = math.inf) -> int:
    """The threads that an engine may use while the other workers' engines are idle.

    Args:
        settings: with sizes chosen.
        given: by the user, whose engine threads are never exceeded.
        cpus: that we may use, quotas counted.
        memory: bytes that we may use.
    """
    if given.engine_threads or _left(settings, memory) < _WIDE_BYTES + 2 * ROOM_BYTES:
        return settings.engine_threads
    return max(1, min(_MOST_WIDE, int(cpus)))


def choose_cpus(settings: Settings, cpus: float, affinity: Sequence[int]) -> list[int]:
    """The CPU that each worker is kept on; none if the system is to move them about.

    Most of a call's time is threads of one process waking each other; on one CPU that is a switch,
    between two an interrupt (docs/performance.md). With a quota, or more CPUs than workers, other
    processes would choose the same CPUs while others idle, so then we do not.

    Args:
        settings: with sizes chosen.
        cpus: that we may use, quotas counted.
        affinity: the CPUs that we may run on.
    """
    one_each = settings.workers == len(affinity) == cpus and settings.engine_threads == 1
    return sorted(affinity) if settings.pin == "auto" and one_each else []


def choose_malloc(settings: Settings, memory: float) -> dict[str, str]:
    """Variables for the workers' environment, by which malloc returns what it need not keep.

    By itself it keeps what large requests took, for the next; glibc's limit for that grows with
    them, to 32 MiB for each of many. Where memory is plenty that is the faster way.

    Args:
        settings: with sizes chosen.
        memory: bytes that we may use.
    """
    if not is_tight(settings, memory):
        return {}
    return {"MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_ARENA_MAX": "2"}


def choose_batch_s(settings: Settings, memory: float) -> float:
    """The longest batch on the CPU, s; what the largest one takes stays with the engine.

    Args:
        settings: with sizes chosen.
        memory: bytes that we may use.
    """
    return _BATCH_S * max(1 / 3, min(1.0, _left(settings, memory) / _PLENTY_BYTES))


def is_tight(settings: Settings, memory: float) -> bool:
    """Whether memory is worth more than the little time that saving it costs.

    Args:
        settings: with sizes chosen.
        memory: bytes that we may use.
    """
    return _left(settings, memory) < _PLENTY_BYTES


def memory_warning(settings: Settings, memory: float) -> str:
    """What to say of a memory limit that is too small to serve under load; empty if it is not.

    Args:
        settings: with sizes chosen.
        memory: bytes that we may use.
    """
    needed = SHARED_BYTES + settings.workers * WORKER_BYTES
    if needed <= memory:
        return ""
    who = "one worker needs" if settings.workers == 1 else f"{settings.workers} workers need"
    what = "give the server more memory"
    if settings.workers > 1:
        what += ", or fewer workers (--workers)"
    return (
        f"{who} about {needed // MIB} MiB to serve photographs and the limit is {in_mib(memory)}: "
        f"under load the kernel may kill the server; {what}"
    )


def in_mib(count: float) -> str:
    """Bytes as people read them; "unlimited" for infinity."""
    return f"{count / MIB:.0f} MiB" if math.isfinite(count) else "unlimited"


def has_cuda_package() -> bool:
    """Whether ONNX Runtime for CUDA is installed; importing it here would cost too much."""
    try:
        metadata.distribution("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def _room(settings: Settings, memory: float) -> float:
    """What each worker has for requests, also where it is not there: with less nothing goes."""
    return max(ROOM_BYTES, _left(settings, memory))


def _left(settings: Settings, memory: float) -> float:
    """Bytes that each worker has beyond what it takes at rest."""
    return (memory - SHARED_BYTES) / settings.workers - WORKER_BYTES


def _within(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))

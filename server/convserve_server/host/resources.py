"""How large a server is on this machine, or in this container: by its CPUs and by its memory.

On CPU one worker for each CPU, each with one engine thread: two processes share the work of the
transport, which one cannot (the GIL), and small batches lose more by waking a second thread than it
computes. Fewer workers get more threads each, which suits a single caller of large batches: its one
connection is with one worker. On CUDA the engine needs no CPU, but every worker has its own copy
of the models on the device: one for four CPUs, as soon as any model may use CUDA.

Of the memory, the supervisor and the libraries that all share need SHARED_BYTES, and each worker
at rest WORKER_BYTES, behind guards GUARD_BYTES more. There are only so many workers that each has
REQUEST_BYTES beyond. What is left, divided by the workers, is what each has to spare. The second
session of expensive models, _MANY_THREADS_BYTES, is made only where three times that is to spare.
The rest is a worker's memory for requests, at least REQUEST_BYTES:

- an eighth for decoders, divided by the decode threads: 16 to 256 MiB for one image file of
  any model. There are no more threads than can have the least;
- a sixteenth for files that wait to be decoded, and as much for pixels that wait for the engine of
  each model version: 4 to 256 MiB. While a request waits it is in memory two or three times: as it
  came, as it was read, and as it was decoded;
- a sixteenth for what all streams hold together, 4 to 64 MiB: requests that are not answered, and
  answers that their clients do not read;
- an eighth is the largest message, 8 to 16 MiB; an answer is at most four times as large;
- a quarter, 32 to 256 MiB, is for calls that are received or not answered, where guards count
  them, and half of it for those of one connection;
- the rest is for messages that are being received, and for batches.

With less than _PLENTY_BYTES to spare, malloc is asked to keep nothing, and batches are shorter.
With 4.2 GiB a worker all is at its most, and more memory changes nothing. What a user has set is
kept.
docs/performance.md has the measurements.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from convserve_server.host.guards import is_guarded
from convserve_server.settings.settings import Settings

MIB = 2**20

#: The supervisor, and the libraries' files that all processes map.
SHARED_BYTES = 48 * MIB
#: The process that copies models from object storage.
COPIER_BYTES = 80 * MIB
#: One worker at rest, with a photo net.
WORKER_BYTES = 160 * MIB
#: For each worker behind guards: its part of one of them, with a thousand connections.
GUARD_BYTES = 32 * MIB
#: A worker with less beyond that for requests is not worth starting.
REQUEST_BYTES = 64 * MIB
#: The second session, with threads on all CPUs.
_MANY_THREADS_BYTES = 64 * MIB
#: Larger pieces are given back by malloc where memory is plenty: most messages are smaller.
_MAPPED_BYTES = 4 * MIB

#: For one image. The least suffices for progressive ones of 5 megapixels, and PNGs of 4 in colour.
_LEAST_DECODER, _MOST_DECODER = 16 * MIB, 256 * MIB
#: The least suffices for what telephones make of 12 megapixels.
_LEAST_MESSAGE, _MOST_MESSAGE = 8 * MIB, 16 * MIB
_LEAST_QUEUE, _MOST_QUEUE = 4 * MIB, 256 * MIB
#: The largest answer, of the largest message; and the most that protobuf's clients accept.
_ANSWERS, _MOST_ANSWER = 4, 2**31 - 1
_LEAST_STREAMS, _MOST_STREAMS = 4 * MIB, 64 * MIB
_LEAST_RECEIVED, _MOST_RECEIVED = 32 * MIB, 256 * MIB
#: Beside the largest message, for other calls of a connection.
_CALLS = 4 * MIB

#: What a worker has beyond WORKER_BYTES where nothing need be saved.
_PLENTY_BYTES = 512 * MIB

#: Longest batch on the CPU, s; others wait meanwhile.
_BATCH_S = 0.06

#: Threads of one engine beyond which a single image gains nothing.
_MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class ResourcePlan:
    """How a server uses the CPUs and the memory that it has.

    Attributes:
        settings: With workers, threads, and bytes for messages, streams, queues and decoders.
        memory: Bytes that the server may use; infinity where nothing limits it.
        cpus: The CPU that each worker is kept on; empty if the system chooses.
        many_threads: Of an engine while the engines of all other workers are idle.
        low_memory: Whether memory is worth more than the little time that saving it costs.
        batch_s: Longest batch on the CPU, s; the memory of the largest one stays with the engine.
    """

    settings: Settings
    memory: float = math.inf
    cpus: tuple[int, ...] = ()
    many_threads: int = 1
    low_memory: bool = False
    batch_s: float = _BATCH_S

    def malloc_variables(self) -> dict[str, str]:
        """Returns variables for the workers, by which malloc returns what it need not keep.

        By itself it keeps the memory of large requests, for the next; glibc's limit for that grows
        with them, to 32 MiB for each of many. What models that are loaded and unloaded take then
        lies between what stays, and a server grows with every new version: hence a limit that does
        not grow. Where memory is plenty most requests are below it, which is the faster way.
        """
        if not self.low_memory:
            return {"MALLOC_MMAP_THRESHOLD_": str(_MAPPED_BYTES)}
        return {"MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_ARENA_MAX": "2"}

    def memory_warning(self) -> str:
        """Returns what to log of a memory limit that is too small under load, else nothing."""
        workers = self.settings.process.workers
        needed = _shared_bytes(self.settings) + workers * WORKER_BYTES
        if needed <= self.memory:
            return ""
        who = "one worker needs" if workers == 1 else f"{workers} workers need"
        what = "give the server more memory"
        if workers > 1:
            what += ", or fewer workers (--workers)"
        return (
            f"{who} about {needed // MIB} MiB to serve photographs and the limit is "
            f"{in_mib(self.memory)}: under load the kernel may kill the server; {what}"
        )


def plan_resources(
    given: Settings, cpus: float, memory: float = math.inf, affinity: Sequence[int] = ()
) -> ResourcePlan:
    """Returns the plan for a machine; see above for the rule.

    Args:
        given: The settings as given; 0 is filled in.
        cpus: That we may use, quotas counted.
        memory: Bytes that we may use.
        affinity: The CPUs that we may run on; empty where the system does not say.
    """
    # A worker holds every model, so one that may use CUDA counts for all.
    devices = {given.engine.device, *(given.for_model(name).device for name in given.by_model)}
    share = 4 if devices != {"cpu"} and has_cuda_package() else 1
    at_rest = WORKER_BYTES + (GUARD_BYTES if is_guarded(given) else 0)
    shared = _shared_bytes(given)
    fitting = max(1.0, (memory - shared) / (at_rest + REQUEST_BYTES))
    workers = given.process.workers or int(min(max(1, int(cpus) // share), fitting))
    threads = max(1, int(cpus) // workers)
    engine_threads = given.engine.engine_threads or threads
    left = (memory - shared) / workers - at_rest
    many_threads = engine_threads
    if not given.engine.engine_threads and left >= _MANY_THREADS_BYTES + 2 * REQUEST_BYTES:
        many_threads = max(1, min(_MOST_THREADS, int(cpus)))
    second = workers > 1 and many_threads > engine_threads
    # Also where it is not there: with less nothing goes.
    spare = max(REQUEST_BYTES, left) - (_MANY_THREADS_BYTES if second else 0)
    decode_threads = given.engine.decode_threads or int(
        max(1.0, min(threads, spare / 8 / _LEAST_DECODER))
    )
    decoder = _within(spare / 8 / decode_threads, _LEAST_DECODER, _MOST_DECODER)
    message = _within(spare / 8, _LEAST_MESSAGE, _MOST_MESSAGE)
    streams = _within(spare / 16, _LEAST_STREAMS, _MOST_STREAMS)
    queue = _within(spare / 16, _LEAST_QUEUE, _MOST_QUEUE)
    most = given.limits.max_message_bytes or message
    received = given.limits.max_received_bytes or max(
        2 * (most + _CALLS), _within(spare / 4, _LEAST_RECEIVED, _MOST_RECEIVED)
    )
    settings = given.replace(
        workers=workers,
        engine_threads=engine_threads,
        decode_threads=decode_threads,
        max_message_bytes=most,
        max_answer_bytes=given.limits.max_answer_bytes or min(_ANSWERS * most, _MOST_ANSWER),
        max_decoder_bytes=given.limits.max_decoder_bytes or decoder,
        max_queue_bytes=given.batching.max_queue_bytes or queue,
        max_stream_bytes=given.limits.max_stream_bytes or streams,
        max_received_bytes=received,
        max_connection_bytes=given.limits.max_connection_bytes or max(most + _CALLS, received // 2),
    )
    return ResourcePlan(
        settings=settings,
        memory=memory,
        cpus=_cpu_of_each_worker(settings, cpus, affinity),
        many_threads=many_threads,
        low_memory=left < _PLENTY_BYTES,
        batch_s=_BATCH_S * max(1 / 3, min(1.0, left / _PLENTY_BYTES)),
    )


def _shared_bytes(settings: Settings) -> int:
    """Returns what is there once, however many workers there are."""
    return SHARED_BYTES + (COPIER_BYTES if settings.models.on_store else 0)


def _cpu_of_each_worker(
    settings: Settings, cpus: float, affinity: Sequence[int]
) -> tuple[int, ...]:
    """Returns the CPU that each worker is kept on; none if the system is to move them about.

    Most of a call's time is threads of one process waking each other; on one CPU that is a switch,
    between two an interrupt (docs/performance.md). With a quota, or more CPUs than workers, other
    processes would choose the same CPUs while others idle, so then we do not.
    """
    one_each = settings.process.workers == len(affinity) == cpus
    if settings.process.pin != "auto" or not one_each or settings.engine.engine_threads != 1:
        return ()
    return tuple(sorted(affinity))


def in_mib(count: float) -> str:
    """Returns bytes as people read them; "unlimited" for infinity."""
    return f"{count / MIB:.0f} MiB" if math.isfinite(count) else "unlimited"


def has_cuda_package() -> bool:
    """Returns whether ONNX Runtime for CUDA is installed; importing it here would cost too much."""
    try:
        metadata.distribution("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def _within(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))

"""Where the time of a training step goes, by TensorFlow's own profiler.

What runs at once is counted once, for the first of: forward and backward, update. The rest of the
time nothing of the net is computed: Python, the copy of the batches, the dispatch of operations.

Source: https://www.tensorflow.org/api_docs/python/tf/profiler/experimental/start (XSpace files).
"""

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.command import BenchmarkError, tell
from benchmarks.harness.table import grid
from convserve_trainer.datasets import mnist
from convserve_trainer.fitting import chunks, order
from convserve_trainer.fitting.tensorflow_steps import Steps
from convserve_trainer.nets import keras_backend, models
from convserve_trainer.recipes import recipe_files

LECTURE = recipe_files.find("lecture", "digits")
_WARM_UP, _PROFILED = 200, 400  # steps

Interval = tuple[float, float]
"""Begin and end."""


@dataclass(frozen=True)
class Part:
    """Of a step."""

    name: str
    ms: float
    #: Of the step's time, 0 to 1.
    share: float


def measured(folder: Path) -> list[Part]:
    """Trains the lecture's digit net for a while and says what each step was busy with.

    Raises:
        BenchmarkError: if the profiler saw no operation of the net.
    """
    data = mnist.make_data(mnist.load(folder))
    model = models.build(LECTURE, data.spec, len(data.labels), len(data.train))
    steps = Steps(model, chunks.StepChunker())
    numbers = order.epoch_order(len(data.train), LECTURE.batch_size, None, LECTURE.seed, 0)
    batches = data.train.batches(numbers, LECTURE.batch_size, _WARM_UP + _PROFILED)
    targets = np.eye(len(data.labels), dtype=np.float32)
    done, waited_s, begun = 0, 0.0, 0.0
    profiler = keras_backend.tensorflow().profiler.experimental
    with tempfile.TemporaryDirectory() as log:
        asked = time.perf_counter()
        for chunk in chunks.make_chunks(batches, steps.chunker):
            waited_s += time.perf_counter() - asked
            steps.train([(pixels, targets[labels]) for pixels, labels in chunk])
            done += len(chunk)
            if not begun and done >= _WARM_UP:
                profiler.start(log, profiler.ProfilerOptions(host_tracer_level=2))
                begun, done, waited_s = time.perf_counter(), 0, 0.0
            asked = time.perf_counter()
        whole_s = time.perf_counter() - begun
        profiler.stop()
        operations = _operations(Path(log))
    tell(f"{done} steps of digits profiled")
    return parts(operations, f"/{model.optimizer.name}/", whole_s, waited_s, done)


def parts(
    operations: Sequence[tuple[str, Interval]],
    update: str,
    whole_s: float,
    waited_s: float,
    steps: int,
) -> list[Part]:
    """Divides the time of some steps.

    Args:
        operations: names and when they ran, s.
        update: is in the names of the optimizer's.
        whole_s: time of the steps.
        waited_s: of it, for the next pictures.
        steps: so many.

    Raises:
        BenchmarkError: if there is no operation of one kind.
    """
    net = [interval for name, interval in operations if update not in name]
    if not net or len(net) == len(operations):
        raise BenchmarkError(f"the profile has no operation with {update} or none without it")
    net_s = covered(net)
    busy_s = covered([interval for _, interval in operations])
    seconds = {
        "forward and backward": net_s,
        "optimizer's update": busy_s - net_s,
        "input": waited_s,
        "Python and dispatch": whole_s - busy_s - waited_s,
    }
    return [Part(name, each / steps * 1e3, each / whole_s) for name, each in seconds.items()]


def covered(intervals: Iterable[Interval]) -> float:
    """Length of what the intervals cover together."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def table(found: Sequence[Part]) -> str:
    """The parts as a Markdown table."""
    lines = [(part.name, f"{part.ms:.2f}", f"{part.share:.1%}") for part in found]
    return grid(("a step of digits", "ms", "share"), lines, {"a step of digits"})


def _operations(log: Path) -> list[tuple[str, Interval]]:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space: Any = xplane_pb2.XSpace()
    for file in log.rglob("*.xplane.pb"):
        space.MergeFromString(file.read_bytes())
    found = []
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if "/while/body/" in name:  # an operation within the loop over the steps
                    begin = line.timestamp_ns * 1e-9 + event.offset_ps * 1e-12
                    found.append((name, (begin, begin + event.duration_ps * 1e-12)))
    return found

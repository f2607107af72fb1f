from collections.abc import Iterator

import numpy as np
import pytest

from convserve_trainer.datasets.pictures import Batch
from convserve_trainer.fitting import chunks
from convserve_trainer.fitting.chunks import StepChunker


def _batches(*sizes: int) -> Iterator[Batch]:
    for number, size in enumerate(sizes):
        yield np.full((size, 2, 2, 1), number, np.uint8), np.full(size, number, np.int64)


def _pace(steps: int) -> StepChunker:
    chunker = StepChunker()
    chunker.steps = steps
    return chunker


@pytest.mark.parametrize(
    ("steps", "sizes", "expected"),
    [
        (1, (4, 4, 3), [[0], [1], [2]]),
        (2, (4, 4, 4, 4, 4), [[0, 1], [2, 3], [4]]),
        (2, (4, 4, 3), [[0, 1], [2]]),
        (3, (4, 4, 3), [[0, 1], [2]]),
        (9, (4, 3, 4, 4), [[0], [1], [2, 3]]),
        (9, (), []),
    ],
)
def test_chunks_keep_the_order_and_hold_batches_of_one_size(
    steps: int, sizes: tuple[int, ...], expected: list[list[int]]
) -> None:
    found = chunks.make_chunks(_batches(*sizes), _pace(steps))
    assert [[int(labels[0]) for _, labels in chunk] for chunk in found] == expected


def test_no_batch_is_asked_for_before_its_chunk() -> None:
    asked = _batches(4, 4, 4)
    assert len(next(chunks.make_chunks(asked, _pace(2)))) == 2
    assert len(list(asked)) == 1


def test_pace_grows_to_the_length_of_a_chunk_and_falls_at_once() -> None:
    chunker = StepChunker()
    seen = []
    for step_s in [2.0, *[chunks.CHUNK_S / 10] * 5, chunks.CHUNK_S / 3, 2 * chunks.CHUNK_S]:
        chunker.record(chunker.steps, chunker.steps * step_s)
        seen.append(chunker.steps)
    assert seen[:4] == [1, 2, 4, 8]
    assert seen[4:6] == [pytest.approx(10, abs=1)] * 2
    assert seen[6:] == [pytest.approx(3, abs=1), 1]


def test_pace_knows_bounds() -> None:
    chunker = StepChunker(most=3)
    for _ in range(5):
        chunker.record(chunker.steps, 1e-6)
    assert chunker.steps == 3

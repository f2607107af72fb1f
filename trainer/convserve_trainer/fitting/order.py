"""The order in which a training sees its pictures: drawn from the seed and nothing else."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

BLOCK = 4_096  # numbers that are objects at a time, which take five times the memory


def epoch_order(
    count: int, batch: int, steps: int | None, seed: int, epoch: int, done: int = 0
) -> Iterator[int]:
    """Returns the numbers of the pictures of an epoch, or of the rest of one, in order.

    Epochs of a fixed number of steps follow each other along one endless stream of shuffled passes
    over all pictures, so an epoch may end in the middle of a pass; the stream goes on after the
    epoch's end, for pictures that must be replaced. It depends on nothing that happened in earlier
    epochs: a training that was stopped and resumed sees what it would have seen.

    Args:
        count: pictures there are, 1 or more.
        batch: pictures a step.
        steps: of every epoch; None for one pass over all pictures, which ends.
        seed: of the shuffling.
        epoch: counted from 0.
        done: steps of the epoch that are passed over.

    Returns:
        Numbers from 0 to count - 1.
    """
    if steps is None:
        passed = min(done * batch, count)
        return islice(_stream(count, seed, epoch * count + passed), count - passed)
    return _stream(count, seed, (epoch * steps + done) * batch)


def _stream(count: int, seed: int, start: int) -> Iterator[int]:
    turn, skipped = divmod(start, count)
    while True:
        numbers = np.random.default_rng([seed, turn]).permutation(count)
        for begin in range(skipped, count, BLOCK):
            yield from numbers[begin : begin + BLOCK].tolist()
        turn, skipped = turn + 1, 0

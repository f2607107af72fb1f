"""Steps that are run together, so that Python is asked a few times a second and not every step."""

from collections.abc import Iterator
from itertools import islice

from convserve_trainer.datasets.pictures import Batch

CHUNK_S = 0.3  # of training between two looks at signals, checkpoints and the progress
MOST = 64  # steps; their pictures are copied once more


class StepChunker:
    """How many steps are run together: as many as take CHUNK_S, by what the last ones took.

    What is computed does not depend on it.

    Args:
        most: steps, 1 or more.

    Attributes:
        steps: of the next chunk, 1 or more.
    """

    def __init__(self, most: int = MOST) -> None:
        self.steps = 1
        self._most = most

    def record(self, steps: int, seconds: float) -> None:
        """Takes a measurement. The steps are doubled at most: one measurement may be an odd one."""
        fitting = int(CHUNK_S * steps / seconds)
        self.steps = max(1, min(fitting, 2 * self.steps, self._most))


def make_chunks(batches: Iterator[Batch], chunker: StepChunker) -> Iterator[list[Batch]]:
    """Yields the batches in order, some at once, all of one size, at most `chunker.steps` of them.

    No batch is asked for before it is needed, but for one of another size.
    """
    following: Batch | None = None
    while chunk := [following] if following else list(islice(batches, 1)):
        following = None
        while len(chunk) < chunker.steps and (following := next(batches, None)):
            if len(following[1]) != len(chunk[0][1]):
                break
            chunk.append(following)
            following = None
        yield chunk

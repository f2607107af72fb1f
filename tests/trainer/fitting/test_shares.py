from collections.abc import Generator

import numpy as np
import pytest

from convserve_trainer.datasets.pictures import ArrayPictures, Batch
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.fitting import order, shares
from convserve_trainer.host.launcher import Member
from convserve_trainer.recipes import recipe_files

PICTURES = ArrayPictures(np.arange(44, dtype=np.uint8).reshape(44, 1, 1, 1), np.arange(44))


def _read(batch: int, member: Member, steps: int | None) -> list[list[int]]:
    numbers = order.epoch_order(44, batch, steps, seed=3, epoch=1, done=1)
    own = shares.own(numbers, batch, member)
    left = None if steps is None else steps - 1
    batches = PICTURES.batches(own, shares.largest(batch, member), left)
    return [labels.tolist() for _, labels in batches]


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize(("batch", "count"), [(16, 2), (16, 4), (12, 3), (7, 2)])
def test_parts_of_all_processes_are_the_batches_of_one(
    batch: int, count: int, steps: int | None
) -> None:
    alone = PICTURES.batches(
        order.epoch_order(44, batch, steps, seed=3, epoch=1, done=1),
        batch,
        None if steps is None else steps - 1,
    )
    parts = [_read(batch, Member("a:1", count, number), steps) for number in range(count)]
    joined = [[row for part in of_step for row in part] for of_step in zip(*parts, strict=True)]
    assert joined == [labels.tolist() for _, labels in alone]
    assert len(joined) == (6 if steps else -(-44 // batch) - 1)


def test_process_has_no_rows_of_a_batch_that_is_too_small() -> None:
    assert list(shares.own(range(5), 4, Member("a:1", 4, 0))) == [0]
    assert list(shares.own(range(5), 4, Member("a:1", 4, 3))) == [3, 4]


LECTURE = recipe_files.find("lecture", "digits")


def test_batches_that_cannot_be_divided_are_refused() -> None:
    shares.check(LECTURE, 60_000, 2)
    shares.check(LECTURE.override(steps=3), 60_001, 2)  # whose batches are all whole
    with pytest.raises(UsageError) as caught:
        shares.check(LECTURE, 60_000, 3)
    expected = "batch_size: expected a multiple of 3, the devices of all processes, got 64"
    assert str(caught.value) == expected
    with pytest.raises(UsageError) as caught:
        shares.check(LECTURE, 60_001, 2)
    assert str(caught.value) == (
        "last batch of an epoch: expected a multiple of 2 pictures, the devices of all processes, "
        "got 33 (60,001 in batches of 64); --steps 937 has none such"
    )


def test_picture_that_is_lost_ends_the_training_before_another_replaces_it() -> None:
    notes = [["known before"], [], ["1 of 44 pictures cannot be read"]]
    ended = []

    def batches() -> Generator[Batch, None, None]:
        try:
            yield from PICTURES.batches(range(44), 4)
        finally:
            ended.append(True)

    complete = shares.complete(batches(), lambda: notes.pop(0))
    assert next(complete)[1].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="^1 of 44 pictures cannot be read: several processes"):
        next(complete)
    assert ended == [True]

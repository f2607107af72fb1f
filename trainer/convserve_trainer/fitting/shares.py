"""What each of several processes reads of the batches that they train on together."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice

from convserve_trainer.datasets.pictures import Batch
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.host.launcher import Member
from convserve_trainer.recipes.recipe import Recipe


def own(order: Iterable[int], batch: int, member: Member) -> Iterator[int]:
    """Yields the numbers that a process reads of each batch, the last one too.

    Process i of P reads rows iB/P to (i + 1)B/P of a batch of B, so that the parts of all in the
    order of their numbers are the batch.

    Args:
        order: numbers of pictures, of all batches; it may be endless.
        batch: pictures a batch, of all processes; the last one may be smaller.
        member: the process.
    """
    numbers = iter(order)
    while rows := list(islice(numbers, batch)):
        begin, end = (at * len(rows) // member.count for at in (member.number, member.number + 1))
        yield from rows[begin:end]


def largest(batch: int, member: Member) -> int:
    """Returns how many pictures of a whole batch a process reads.

    Args:
        batch: pictures a batch, of all processes.
        member: the process.
    """
    return (member.number + 1) * batch // member.count - member.number * batch // member.count


def check(recipe: Recipe, pictures: int, devices: int) -> None:
    """Checks that every batch of the training can be divided among all devices.

    Args:
        recipe: of the training.
        pictures: to train on.
        devices: of all processes.

    Raises:
        UsageError: one cannot.
    """
    if recipe.batch_size % devices:
        raise UsageError(
            f"batch_size: expected a multiple of {devices}, the devices of all processes, got "
            f"{recipe.batch_size}"
        )
    last = 0 if recipe.steps else pictures % recipe.batch_size
    if last % devices:
        raise UsageError(
            f"last batch of an epoch: expected a multiple of {devices} pictures, the devices of "
            f"all processes, got {last} ({pictures:,} in batches of {recipe.batch_size}); "
            f"--steps {max(1, pictures // recipe.batch_size)} has none such"
        )


def complete(
    batches: Generator[Batch, None, None], notes: Callable[[], list[str]]
) -> Generator[Batch, None, None]:
    """Yields batches as long as no picture is replaced by another, which the others would not know.

    Args:
        batches: of one of several processes.
        notes: returns what has happened to the data since the last call.

    Raises:
        DataError: a picture that was there when the training began is not any more.
    """
    notes()  # what was known before
    with closing(batches):
        for batch in batches:
            if lost := notes():
                raise DataError(
                    f"{lost[0]}: several processes that train together cannot replace one while "
                    "they train; start again without it, or with --cache memory"
                )
            yield batch

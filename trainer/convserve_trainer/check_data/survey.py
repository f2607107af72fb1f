"""Every picture of a set, examined by as many threads as there are CPUs."""

from collections.abc import Callable
from dataclasses import dataclass

from convserve_trainer.check_data.picture import Fault, Picture, examine, fault
from convserve_trainer.check_data.tree import PictureFile, Tree
from convserve_trainer.datasets import photo_reader


@dataclass(frozen=True)
class Survey:
    """A picture set and what its files are.

    Attributes:
        tree: the set.
        pictures: that decode, in the order of the tree's files.
        faults: of the files that do not, in the same order.
    """

    tree: Tree
    pictures: dict[PictureFile, Picture]
    faults: dict[PictureFile, Fault]


def survey(tree: Tree, count: Callable[[int], None] = lambda _: None) -> Survey:
    """Reads and decodes every picture of a set.

    Args:
        tree: the set.
        count: is told how many pictures are done.
    """
    pictures: dict[PictureFile, Picture] = {}
    faults: dict[PictureFile, Fault] = {}
    paths = [tree.folder / file.path for file in tree.files]
    for number, result in photo_reader.each(lambda n: examine(paths[n]), len(paths)):
        if isinstance(result, Picture):
            pictures[tree.files[number]] = result
        else:
            faults[tree.files[number]] = fault(paths[number], result)
        count(number + 1)
    return Survey(tree, pictures, faults)

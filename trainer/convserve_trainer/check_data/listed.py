"""A picture set that a list names: a CSV file, tables, or a folder of Hugging Face's datasets."""

import os
from pathlib import Path

from convserve_trainer.check_data.tree import PictureFile, SkippedEntry, Tree
from convserve_trainer.datasets.content import Content, TableRow
from convserve_trainer.datasets.photo_lists import Lister, ListReader
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import Say


def read(lister: Lister, source: Source, say: Say) -> Tree:
    """Reads the list; opens no picture, but unpacks those of tables.

    Args:
        lister: of the list's format.
        source: which list.
        say: takes lines on what is done.

    Raises:
        DataError: the list is not as it should be.
    """
    assert source.folder is not None, "the format was found by its name"
    base = source.folder if source.folder.is_dir() else source.folder.parent
    classes: dict[str, tuple[str, ...]] = {}
    files: list[PictureFile] = []
    skipped: list[SkippedEntry] = []
    for name, part in ListReader(lister).parts(source, say).items():
        classes[name] = part.labels
        files += [
            PictureFile(
                name, part.labels[photo.label], _below(base, photo.path), content=photo.path
            )
            for photo in part.photos
        ]
        skipped += [
            SkippedEntry(_below(base, content), "unlabelled") for content in part.unlabelled
        ]
    return Tree(source.folder, classes, (), tuple(files), tuple(skipped), listed=True)


def _below(base: Path, content: Content) -> str:
    """Returns the path of a picture, or of its table and the row, seen from the list's folder."""
    if isinstance(content, TableRow):
        return f"{os.path.relpath(content.table, base)} row {content.row}"
    return os.path.relpath(str(content), base)

"""Photographs in Parquet: one file, or a folder of shards, as Hugging Face's repositories have it.

The part of a shard is a word of its path below the folder: data/train-00000-of-00002.parquet. The
names of classes are those of the schema's metadata, or those that the README of a repository
states (`dataset_info`). The column of pictures has the bytes of a file, a struct of bytes and path,
or a path relative to the folder of the table.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_imaging.folder_names import is_passed_over
from convserve_trainer.datasets import parts
from convserve_trainer.datasets.photo_lists import Listed
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError

if TYPE_CHECKING:
    from convserve_trainer.datasets.tables import Features, Table

PARQUET = ".parquet"
README, DATA = "README.md", "data"
_MARK = "---\n"  # of YAML at the beginning of a README


def match(folder: Path) -> bool:
    """Returns whether it is a Parquet file, or has some: in it, in data/ or in those of parts."""
    if not folder.is_dir():
        return folder.suffix.lower() == PARQUET
    return bool(_shards(folder))


def rows(source: Source, say: Say) -> Iterator[Listed]:
    """Yields the rows of all files; see `photo_lists.Lister`.

    Raises:
        DataError: a file is not as it should be.
    """
    from convserve_trainer.datasets import table_rows  # pyarrow is an extra

    assert source.folder is not None, "the format was found by its name"
    return table_rows.rows(_tables(source.folder), source, say)


def _tables(path: Path) -> "list[Table]":
    from convserve_trainer.datasets.tables import Table

    if not path.is_dir():
        return [Table(path, path.name)]
    features = _stated(path / README)
    found = []
    for shard in _shards(path):
        name = shard.relative_to(path).as_posix()
        found.append(Table(shard, name, parts.in_path(name), features))
    return found


def _shards(folder: Path) -> list[Path]:
    """Returns the Parquet files of a folder, by name."""
    inside = [folder, folder / DATA, *parts.folders(folder).values()]
    found = (path for each in inside for path in each.glob(f"*{PARQUET}"))
    return sorted(path for path in found if path.is_file() and not is_passed_over(path.name))


def _stated(readme: Path) -> "Features":
    """Returns the features that the README of a repository states, if there is one.

    Raises:
        DataError: it has several data sets, or its beginning is not YAML.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown(readme)}: {error}") from error
    if not text.startswith(_MARK):
        return {}
    import yaml

    try:
        stated = yaml.safe_load(text[len(_MARK) :].partition(f"\n{_MARK}")[0])
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise DataError(f"{shown(readme)}: expected YAML at the beginning: {why}") from error
    info = stated.get("dataset_info") if isinstance(stated, dict) else None
    if isinstance(info, list) and len(info) > 1:
        names = ", ".join(str(each.get("config_name")) for each in info if isinstance(each, dict))
        raise DataError(
            f"{shown(readme)} has several configurations ({names}): expected one; name the folder "
            "with the files of one"
        )
    [info] = info if isinstance(info, list) and info else [info]
    listed = info.get("features") if isinstance(info, dict) else None
    if not isinstance(listed, list):
        return {}
    return {
        str(each["name"]): _feature(each.get("dtype"))
        for each in listed
        if isinstance(each, dict) and "name" in each
    }


def _feature(kind: Any) -> Mapping[str, Any]:
    """Returns a README's type of a column as the metadata of a schema have it."""
    if kind == "image":
        return {"_type": "Image"}
    names = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
    if isinstance(names, dict):  # by number: {'0': cat, '1': dog}
        names = [str(name) for _, name in sorted(names.items(), key=lambda each: int(each[0]))]
    return {"_type": "ClassLabel", "names": names} if isinstance(names, list) else {}

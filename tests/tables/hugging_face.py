"""Writes class folders in every local form of Hugging Face's datasets, by its own package.

python -m tests.tables.hugging_face FOLDER TARGET
"""

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"), "1")

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from tests.tables.written import LABELS, files


def _dataset(folder: Path, part: str) -> Any:
    rows = [row for row in files(folder) if row[0] == part]
    columns = {
        "image": [str(path) for _, _, path in rows],
        "label": [LABELS.index(label) for _, label, _ in rows],
    }
    label = datasets.ClassLabel(names=list(LABELS))
    features = datasets.Features({"image": datasets.Image(), "label": label})
    return datasets.Dataset.from_dict(columns, features=features)


def write(folder: Path, target: Path) -> None:
    """Writes saved/, single/, repository/, and csv/, jsonl/, parquet/ with metadata files."""
    parts = {part: _dataset(folder, part) for part in ("train", "validation")}
    both = datasets.DatasetDict(parts)
    both.save_to_disk(target / "saved", num_shards={"train": 3, "validation": 1})
    parts["train"].save_to_disk(target / "single")
    (target / "repository/data").mkdir(parents=True)
    for part, dataset in parts.items():
        dataset.to_parquet(target / f"repository/data/{part}-00000-of-00001.parquet")
    datasets.config.HF_DATASETS_CACHE = target / "cache"
    loaded = datasets.load_dataset(str(target / "repository"), cache_dir=str(target / "cache"))
    loaded.save_to_disk(target / "loaded")
    for kind in ("csv", "jsonl", "parquet"):
        for part in parts:
            _metadata(target / kind / part, [row for row in files(folder) if row[0] == part], kind)
    shutil.copytree(target / "csv", target / "top")
    rows = []
    for file in sorted((target / "top").glob("*/metadata.csv")):
        with file.open(newline="") as text:
            found = list(csv.DictReader(text))
        rows += [{**row, "file_name": f"{file.parent.name}/{row['file_name']}"} for row in found]
        file.unlink()
    with (target / "top/metadata.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _metadata(folder: Path, rows: list[tuple[str, str, Path]], kind: str) -> None:
    """Writes pictures directly in the folder of a part, with a list of them."""
    (folder / "pictures").mkdir(parents=True)
    listed = []
    for number, (_, label, path) in enumerate(rows):
        name = f"pictures/{number:03}.jpg"
        shutil.copy(path, folder / name)
        listed.append({"file_name": name, "label": label, "more": number})
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(listed), folder / "metadata.parquet")
    elif kind == "jsonl":
        lines = [json.dumps(row) for row in listed]
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    else:
        with (folder / "metadata.csv").open("w", newline="") as text:
            writer = csv.DictWriter(text, listed[0])
            writer.writeheader()
            writer.writerows(listed)


def numbers(target: Path) -> dict[str, Any]:
    """Returns, for each form, the rows that the package itself reads of each part."""
    found: dict[str, Any] = {}
    for name in ("repository", "csv", "jsonl", "parquet", "top"):
        loaded = datasets.load_dataset(str(target / name), cache_dir=str(target / f"cache-{name}"))
        found[name] = {part: len(dataset) for part, dataset in loaded.items()}
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(numbers(Path(sys.argv[2]))))

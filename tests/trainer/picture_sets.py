"""Picture sets made for tests, and the command run on them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convserve_trainer.main import main

SPLITS = ("train", "validation")
CLASSES = ("cats", "dogs")


def picture(number: int, width: int = 200, height: int = 160) -> Image.Image:
    """Returns a picture unlike that of any other number: soft patches of colour."""
    patches = np.random.default_rng(number).integers(0, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", **{"quality": 90} | options)
    return path


def fair_set(folder: Path, each: int = 3) -> Path:
    """Makes a set in which nothing is wrong."""
    numbers = iter(range(1000))
    for split in SPLITS:
        for label in CLASSES:
            for name in range(each):
                save(folder / split / label / f"{name}.jpg", picture(next(numbers)))
    return folder


def files(*folders: Path) -> list[Path]:
    """Returns all files and links below folders, but for lists of what was moved."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return [p for p in found if (p.is_symlink() or p.is_file()) and p.name != "moved.tsv"]


class Check:
    """The command, run on a set with --json."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        self.status = main(["check-data", str(folder), "--json", *options])
        captured = capsys.readouterr()
        self.errors = captured.err
        self.result: dict[str, Any] = json.loads(captured.out)

    def kinds(self, severity: str = "error") -> list[str]:
        """Returns the kinds found of a severity."""
        found = self.result["findings"]
        return [finding["kind"] for finding in found if finding["severity"] == severity]

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Returns what is found of a kind, an error if nothing is."""
        [found] = [f["items"] for f in self.result["findings"] if f["kind"] == kind]
        items: list[dict[str, Any]] = found
        return items

    def paths(self, kind: str) -> list[str]:
        return [item["path"] for item in self.items(kind)]

    def moved(self) -> dict[str, str]:
        """Returns the reason of every file moved, by where it was."""
        moves: Iterable[dict[str, str]] = self.result["set_aside"]["moved"]
        return {move["from"]: move["reason"] for move in moves}

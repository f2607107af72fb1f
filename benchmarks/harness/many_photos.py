"""Large sets of photographs, made of some real ones: other parts of them, mirrored, encoded anew.

Each file has a content of its own, so that no cache can take one for another. The classes mean
nothing: such a set is for measurements of speed and memory.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from benchmarks.harness.command import tell

SOURCES = 300  # photographs that all are made of
VALIDATION = 20  # one picture in so many
LEAST = 0.6  # of a side that a part has
QUALITY = 85


def make(folder: Path, sources: Sequence[bytes], count: int, classes: int, seed: int = 0) -> None:
    """Writes a folder with train and validation, in each a subfolder a class.

    Files that are there already are left as they are, so that a run that was stopped goes on.

    Args:
        folder: need not exist.
        sources: JPEG files.
        count: pictures, of both parts.
        classes: that they are spread over evenly, 2 or more.
        seed: of all choices.
    """
    decoded = [simplejpeg.decode_jpeg(data) for data in sources]
    for part in ("train", "validation"):
        for label in range(classes):
            (folder / part / _class(label)).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / _part(number, classes) / _class(number % classes) / f"{number:08}.JPEG"
        if not path.exists():
            path.write_bytes(_picture(decoded, np.random.default_rng([seed, number])))
        if (number + 1) % 10_000 == 0:
            tell(f"{number + 1:,} photographs made")


def _class(label: int) -> str:
    return f"n{label:08}"


def _part(number: int, classes: int) -> str:
    """Returns the part: each class has its share of both."""
    return "validation" if number // classes % VALIDATION == 0 else "train"


def _picture(decoded: Sequence[npt.NDArray[np.uint8]], chance: np.random.Generator) -> bytes:
    whole_one = decoded[int(chance.integers(len(decoded)))]
    height, width = (max(8, round(side * chance.uniform(LEAST, 1))) for side in whole_one.shape[:2])
    top = chance.integers(whole_one.shape[0] - height + 1)
    left = chance.integers(whole_one.shape[1] - width + 1)
    part = whole_one[top : top + height, left : left + width]
    if chance.integers(2):
        part = part[:, ::-1]
    # A level of its own, so that two equal parts are two contents.
    shift = chance.integers(-20, 21, 3)
    shifted = np.clip(part.astype(np.int16) + shift, 0, 255).astype(np.uint8)
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(shifted), quality=QUALITY)
    return encoded

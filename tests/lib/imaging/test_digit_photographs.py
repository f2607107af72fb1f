"""`digits.centre` on photographs of sheets: light, lines, tables, dust, and what is not a digit."""

import gzip
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from convserve_imaging.components import pieces_of
from convserve_imaging.digits import centre
from convserve_imaging.errors import (
    BlankPictureError,
    NoDigitError,
    PictureError,
    SeveralDigitsError,
)
from tests.digit_photographs import HEIGHT, SCENES, WIDTH, photograph, written

Pixels = npt.NDArray[np.uint8]

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CONVSERVE_TEST_DATA", ROOT.parent / "shared" / "data"))
NOTHING = np.zeros((HEIGHT, WIDTH), np.float32)


@pytest.fixture(scope="module")
def mnist() -> Pixels:
    """The first of the test digits: uint8 [2000, 28, 28]."""
    folder = DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST in {folder}; CONVSERVE_TEST_DATA names the folder above it")
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:2000]


def _distance(one: Pixels, other: Pixels) -> float:
    """Mean difference in levels where they fit best: rounding may move a digit by one pixel."""
    return min(
        float(np.abs(np.roll(one, (down, right), (0, 1)).astype(float) - other).mean())
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    )


def _tight(digit: Pixels) -> Pixels:
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _refused(picture: Image.Image) -> str:
    try:
        centre(picture)
    except PictureError as error:
        return error.reason
    return "answered"


# The same digit on a clean sheet is the reference. Another digit differs by 30 levels or more.
@pytest.mark.parametrize("scene", SCENES)
def test_digit_is_found_on_every_sheet(mnist: Pixels, scene: str) -> None:
    for number, digit in enumerate(mnist[:20]):
        ink = written([digit])
        clean = Image.fromarray(np.rint(225 - 185 * ink).astype(np.uint8))
        found = centre(photograph(ink, scene, number))
        assert _distance(found, centre(clean)) < 18, f"digit {number}"


def test_chalk_on_a_board_in_soft_light_is_found(mnist: Pixels) -> None:
    for number, digit in enumerate(mnist[:20]):
        ink = written([digit])
        clean = Image.fromarray(np.rint(60 + 160 * ink).astype(np.uint8))
        found = centre(photograph(ink, "soft", number, light=True))
        assert _distance(found, centre(clean)) < 18, f"digit {number}"


@pytest.mark.parametrize("scene", ["even", "hard", "ruled"])
def test_two_digits_are_refused(mnist: Pixels, scene: str) -> None:
    pairs = [
        photograph(written([one, other], height=90, top=120, left=60), scene, number)
        for number, (one, other) in enumerate(zip(mnist[:20], mnist[20:40], strict=True))
    ]
    outcomes = [_refused(pair) for pair in pairs]
    assert outcomes.count("several") >= 19
    first = outcomes.index("several")
    with pytest.raises(SeveralDigitsError, match="got several digits"):
        centre(pairs[first])


def test_digit_of_broken_strokes_is_one(mnist: Pixels) -> None:
    broken = [digit for digit in mnist if len(pieces_of(digit > 127).area) > 1]
    assert len(broken) >= 40
    outcomes = [
        _refused(photograph(written([digit]), "even", number))
        for number, digit in enumerate(broken)
    ]
    assert outcomes == ["answered"] * len(broken)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("light", [False, True])
def test_digit_that_was_cut_out_tightly_is_not_blank(
    mnist: Pixels, times: int, light: bool
) -> None:
    distances = []
    for digit in mnist[:100]:
        cut = _tight(digit)
        picture = Image.fromarray(255 - cut if light else cut)
        picture = picture.resize((cut.shape[1] * times, cut.shape[0] * times), Image.Resampling.BOX)
        distances.append(_distance(centre(picture)[:, :, 0], digit))
    assert np.count_nonzero(np.array(distances) > 8) <= 1


def test_small_picture_is_enlarged_without_steps() -> None:
    picture = np.zeros((7, 7), np.uint8)
    picture[1:6, 1:6] = [60, 110, 160, 210, 255]
    middle = centre(Image.fromarray(picture))[14, :, 0]
    assert len(np.unique(middle[middle > 0])) >= 9, "with steps there are 5 levels"


def test_dust_does_not_move_the_digit(mnist: Pixels) -> None:
    ink = written([mnist[0]])
    clean = centre(photograph(ink, "even", 0))
    dusty = photograph(ink, "even", 0)
    draw = ImageDraw.Draw(dusty)
    for column, row in ((12, 9), (460, 20), (30, 340), (450, 350)):
        draw.ellipse((column, row, column + 4, row + 4), fill=40)
    assert _distance(centre(dusty), clean) < 1


@pytest.mark.parametrize("scene", ["even", "soft"])
def test_empty_sheet_is_blank(scene: str) -> None:
    for seed in range(10):
        with pytest.raises(BlankPictureError, match="the picture is blank"):
            centre(photograph(NOTHING, scene, seed))


@pytest.mark.parametrize("scene", ["hard", "ruled", "squared", "table"])
def test_sheet_without_a_digit_is_refused(scene: str) -> None:
    for seed in range(10):
        assert _refused(photograph(NOTHING, scene, seed)) in ("blank", "no-digit")


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8))


def _squares() -> Image.Image:
    return Image.fromarray((np.indices((200, 200)).sum(0) // 20 % 2 * 255).astype(np.uint8))


@pytest.mark.parametrize("picture", [_noise(), _squares()], ids=["noise", "squares"])
def test_what_is_no_digit_is_not_called_blank(picture: Image.Image) -> None:
    with pytest.raises(NoDigitError, match="expected one handwritten digit, darker or lighter"):
        centre(picture)


def test_pieces_are_those_of_a_flood() -> None:
    random = np.random.default_rng(3)
    for density in (0.05, 0.3, 0.5, 0.7):
        mask = random.random((23, 31)) < density
        found = pieces_of(mask)
        label = np.full(mask.shape, -1)
        label[mask] = found.piece
        count = 0
        left = mask.copy()
        while left.any():
            queue = [tuple(np.argwhere(left)[0])]
            flooded = np.zeros_like(mask)
            while queue:
                row, column = queue.pop()
                if left[row, column]:
                    left[row, column] = False
                    flooded[row, column] = True
                    queue += [
                        (down, right)
                        for down in range(max(0, row - 1), min(23, row + 2))
                        for right in range(max(0, column - 1), min(31, column + 2))
                    ]
            assert set(label[flooded]) == {count}
            rows, columns = np.nonzero(flooded)
            assert found.area[count] == len(rows)
            assert (found.top[count], found.bottom[count]) == (rows.min(), rows.max() + 1)
            assert (found.left[count], found.right[count]) == (columns.min(), columns.max() + 1)
            assert np.array_equal(
                found.mask(np.arange(len(found.area)) == count, (23, 31)), flooded
            )
            count += 1
        assert count == len(found.area)

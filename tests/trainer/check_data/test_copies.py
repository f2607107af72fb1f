"""The same picture in several places: found, and nothing else taken for it."""

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from convserve_imaging import photos
from convserve_trainer.check_data import look_alikes
from convserve_trainer.check_data import survey as examined
from tests.trainer.conftest import DATA
from tests.trainer.picture_sets import Check, fair_set, picture, save

Capsys = pytest.CaptureFixture[str]
Change = Callable[[Image.Image], Image.Image]


@pytest.mark.parametrize(
    ("source", "target", "kind", "status"),
    [
        ("train/cats/0.jpg", "train/cats/copy.jpg", "copies", 0),
        ("train/cats/0.jpg", "train/dogs/copy.jpg", "two-labels", 1),
        ("train/cats/0.jpg", "validation/cats/copy.jpg", "in-both-splits", 1),
        ("train/cats/0.jpg", "validation/dogs/copy.jpg", "two-labels", 1),
    ],
)
def test_same_file_twice(
    source: str, target: str, kind: str, status: int, tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    shutil.copy(folder / source, folder / target)
    check = Check(folder, capsys)
    assert check.status == status
    [item] = check.items(kind)
    assert {item["path"], *item["others"]} == {source, target}
    assert item["detail"] == "the same file"
    assert len(check.result["findings"]) == 1


@pytest.mark.parametrize(
    ("target", "kind", "status"),
    [
        ("train/cats/new.jpg", "copies", 0),
        ("train/dogs/new.jpg", "two-labels", 1),
        ("validation/cats/new.jpg", "in-both-splits", 1),
    ],
)
def test_same_picture_encoded_anew(
    target: str, kind: str, status: int, tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    with Image.open(folder / "train/cats/0.jpg") as image:
        save(folder / target, image, quality=60)
    check = Check(folder, capsys)
    assert check.status == status
    [item] = check.items(kind)
    assert {item["path"], *item["others"]} == {"train/cats/0.jpg", target}
    assert item["detail"] == "the same picture in another file"
    assert len(check.result["findings"]) == 1


def test_many_copies_are_one_thing(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    for number in range(5):
        shutil.copy(folder / "train/cats/0.jpg", folder / f"validation/cats/copy{number}.jpg")
    [item] = Check(folder, capsys).items("in-both-splits")
    assert len(item["others"]) == 5


def test_uniform_pictures_are_not_alike(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    save(folder / "train/cats/white.jpg", Image.new("RGB", (200, 200), "white"))
    save(folder / "validation/dogs/pale.jpg", Image.new("RGB", (200, 200), "ivory"))
    check = Check(folder, capsys)
    assert check.kinds() == []
    assert len(check.items("uniform")) == 2


def _resized(share: float) -> Change:
    return lambda image: image.resize((int(image.width * share), int(image.height * share)))


def _cut(share: float) -> Change:
    def cut(image: Image.Image) -> Image.Image:
        x, y = (max(1, int(side * share)) for side in image.size)
        return image.crop((x, y, image.width - x, image.height - y))

    return cut


def _brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.2)


def _thumbnail(image: Image.Image, quality: int = 85) -> look_alikes.Thumbnail:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    pixels = photos.decode(file.getvalue(), examined.SIZE, examined.SIZE)
    return look_alikes.thumbnail(examined.brightness(pixels))


def _pairs(
    thumbnails: list[look_alikes.Thumbnail], splits: list[int]
) -> Iterator[look_alikes.Pair]:
    count = len(thumbnails)
    yield from look_alikes.find(np.stack(thumbnails), range(count), splits, [0] * count)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Photographs if there are any, or else pictures made here."""
    files = sorted((DATA / "cats_dogs/validation").glob("*/*0.jpg"))[:40]
    return [Image.open(file) for file in files] or [picture(n, 500, 375) for n in range(40)]


@pytest.mark.parametrize(
    ("change", "quality", "least_same", "least_found"),
    [
        (lambda image: image, 40, 1.0, 1.0),
        (_resized(0.5), 85, 0.9, 1.0),
        (_resized(1.7), 85, 1.0, 1.0),
        (lambda image: image.convert("L"), 85, 1.0, 1.0),
        (_cut(0.01), 85, 0.5, 1.0),
        (_cut(0.02), 85, 0.0, 0.9),
        (_brighter, 85, 0.0, 0.95),
    ],
    ids=["encoded-anew", "halved", "enlarged", "grey", "cut-1%", "cut-2%", "brighter"],
)
def test_changed_copy_is_found_in_the_other_split(
    change: Change, quality: int, least_same: float, least_found: float, images: list[Image.Image]
) -> None:
    count = len(images)
    originals = [_thumbnail(image) for image in images]
    changed = [_thumbnail(change(image), quality) for image in images]
    found = list(_pairs(originals + changed, [0] * count + [1] * count))
    assert all(pair.second == pair.first + count for pair in found), "a different picture"
    assert all(pair.relation == look_alikes.ACROSS_SPLITS for pair in found)
    assert len(found) >= least_found * count
    assert sum(pair.same for pair in found) >= least_same * count


def test_copy_of_a_soft_picture_is_found_too() -> None:
    """A slope of light has few frequencies; all others are noise."""
    slope = Image.linear_gradient("L").resize((300, 200)).convert("RGB")
    thumbnails = [_thumbnail(slope, 95), _thumbnail(slope.resize((180, 150)), 50)]
    assert [pair.same for pair in _pairs(thumbnails, [0, 1])] == [True]


def test_different_pictures_are_not_alike(images: list[Image.Image]) -> None:
    thumbnails = [_thumbnail(image) for image in images]
    assert list(_pairs(thumbnails, [number % 2 for number in range(len(images))])) == []


def test_the_same_picture_comes_before_one_more_alike() -> None:
    """Of several partners the one that is an error is kept: what `--fix` moves depends on it."""
    original = _thumbnail(picture(1))
    # As correlated as can be, but much darker: alike, and not the same.
    darker = (original * 0.7).astype(np.uint8)
    noise = np.random.default_rng(1).integers(-6, 7, original.shape)
    same = np.clip(original + noise, 0, 255).astype(np.uint8)
    for partners in ([darker, same], [same, darker]):
        found = list(_pairs([original, *partners], [0, 1, 1]))
        same_ones = [pair for pair in found if pair.same]
        assert [pair.second for pair in same_ones] == [
            1 + [p is same for p in partners].index(True)
        ]
        assert len(found) == 2


def test_pairs_are_found_across_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = [_thumbnail(picture(number)) for number in range(20)]
    everything = thumbnails + [_thumbnail(picture(number), 50) for number in range(20)]
    splits = [0] * 20 + [1] * 20
    monkeypatch.setattr(look_alikes, "_TILE", 7)
    found = [(pair.first, pair.second) for pair in _pairs(everything, splits)]
    assert found == [(number, number + 20) for number in range(20)]

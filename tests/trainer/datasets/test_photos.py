import gc
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convserve_imaging import PHOTO_BILINEAR
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, InputSpec
from convserve_trainer.datasets import photo_reader, photo_survey, photos, pixel_store
from convserve_trainer.datasets.photo_list import Photo
from convserve_trainer.datasets.pictures import Data, Labels, Part, Pictures, Pixels, Source
from convserve_trainer.errors import DataError, UsageError
from tests.trainer.drawn import draw, draw_parts

CACHES = ["none", "memory", "disk"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_parts(tmp_path / "data", {"red": 6, "blue": 4}, {"red": 3, "blue": 2})


def _load(folder: Path, limit: int | None = None, **settings: object) -> tuple[Data, list[str]]:
    lines: list[str] = []
    source = Source(folder, 16, 24, **settings)  # type: ignore[arg-type]
    return photos.load(source, limit, lines.append), lines


def _all(pictures: Pictures) -> tuple[Pixels, Labels]:
    [batch] = pictures.batches(range(len(pictures)), len(pictures))
    return batch


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list to which the names of photographs come that are decoded from now on."""
    decoded: list[str] = []
    decode = photo_reader.read_known

    def counting(photo: Photo, *how: Any) -> Pixels:
        decoded.append(photo.name)
        return decode(photo, *how)

    monkeypatch.setattr(photo_reader, "read_known", counting)
    return decoded


@pytest.mark.parametrize("cache", CACHES)
def test_pixels_are_the_same_wherever_they_are_kept(folder: Path, cache: str) -> None:
    data, _ = _load(folder, cache=cache)
    pixels, labels = _all(data.train)
    paths = sorted((folder / "train").rglob("*.jpg"))
    assert np.array_equal(pixels, photo_reader.pixels_of(paths, 16, 24))
    assert labels.tolist() == [0] * 4 + [1] * 6
    assert data.labels == ("blue", "red")
    spec = InputSpec(height=16, width=24, channels=3, kind=IMAGE_KIND_PHOTO, resize=PHOTO_BILINEAR)
    assert data.spec == spec
    assert sorted(_all(data.held_out)[1].tolist()) == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("cache", CACHES)
def test_sizes_are_those_of_the_files_upright(folder: Path, cache: str) -> None:
    turned = folder / "train/blue/000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (40, 30)).save(turned, exif=exif)
    (folder / "train/blue/001.jpg").write_bytes(b"no picture")
    data, _ = _load(folder, cache=cache, max_unreadable=0.2)
    assert data.train.sizes is not None
    assert data.held_out.sizes is not None
    assert data.train.sizes.shape == (9, 2)
    assert data.train.sizes[0].tolist() == [40, 30]
    with Image.open(folder / "train/blue/002.jpg") as image:
        assert data.train.sizes[1].tolist() == [image.height, image.width]
    assert data.held_out.sizes.min() >= 24
    part = Part(data.train, np.array([1, 0]))
    assert part.sizes is not None
    assert part.sizes[1].tolist() == [40, 30]


def test_held_out_pictures_are_mixed_by_their_content(tmp_path: Path) -> None:
    part = {"red": 20, "blue": 20}
    labels = _all(_load(draw_parts(tmp_path / "data", part, part))[0].held_out)[1]
    assert labels.tolist() != sorted(labels.tolist())
    assert 0 < labels[:20].sum() < 20, "a first part has both classes"


def test_split_of_one_folder_gives_other_parts_and_another_digest(tmp_path: Path) -> None:
    folder = draw(tmp_path / "data", {"red": 20, "blue": 20})
    shutil.copytree(folder / "red", tmp_path / "copies")
    for path in (tmp_path / "copies").iterdir():
        path.rename(folder / "red" / f"copy of {path.name}")
    data, _ = _load(folder, split=0.3)
    train, held_out = ({p.tobytes() for p in _all(part)[0]} for part in (data.train, data.held_out))
    assert len(train) + len(held_out) == 40
    assert len(data.train) + len(data.held_out) == 60
    assert not train & held_out, "no copy straddles"
    assert _load(folder, split=0.3)[0].sha256 == data.sha256 != _load(folder, split=0.6)[0].sha256


def test_limit_is_of_the_training_part_only(folder: Path) -> None:
    data, lines = _load(folder, limit=3)
    assert _all(data.train)[1].tolist() == [0, 0, 1]
    assert len(data.held_out) == 5
    assert lines == [
        "3 photographs to train on, decoded in memory (0 MiB)",
        "5 photographs held out, decoded in memory (0 MiB)",
    ]


def test_copies_across_the_parts_are_warned_of(folder: Path) -> None:
    assert "warning" not in "".join(_load(folder)[1])
    shutil.copy(folder / "train/red/000.jpg", folder / "validation/red/again.jpg")
    _, lines = _load(folder)
    assert "warning: 1 held-out picture is trained on too, as copies" in lines


@pytest.mark.parametrize("cache", CACHES)
def test_unreadable_pictures_are_left_out_named_and_counted(folder: Path, cache: str) -> None:
    whole, _ = _load(folder)
    (folder / "train/red/001.jpg").write_bytes(b"")
    shutil.copyfile(folder / "train/blue/000.jpg", folder / "train/blue/text.txt")
    (folder / "validation/blue/000.jpg").write_text("<html>")
    os.symlink("nowhere", folder / "train/blue/link.jpg")
    data, lines = _load(folder, cache=cache, max_unreadable=0.2)
    assert lines[0] == (
        "not used: 1 file, no JPEG in a class's folder by name (.jpg, .jpeg, .jpe, .jfif): "
        f"{folder}/train/blue/text.txt"
    )
    train, held_out = lines[1], lines[3]
    assert train.startswith("2 of 16 pictures cannot be read and are left out: ")
    assert f"{folder}/train/blue/link.jpg (No such file or directory), " in train
    assert f"{folder}/train/red/001.jpg (" in train
    assert held_out.startswith("3 of 16 pictures cannot be read")
    assert f"{folder}/validation/blue/000.jpg (" in held_out
    assert "HTML" in held_out
    assert (len(data.train), len(data.held_out)) == (9, 4)
    paths = [path for path in sorted((folder / "train").rglob("*.jpg")) if path.stem != "link"]
    paths.remove(folder / "train/red/001.jpg")
    assert np.array_equal(_all(data.train)[0], photo_reader.pixels_of(paths, 16, 24))
    assert data.sha256 != whole.sha256


def test_too_many_unreadable_pictures_are_an_error_that_says_what_helps(folder: Path) -> None:
    paths = sorted((folder / "train/red").iterdir()) + sorted((folder / "train/blue").iterdir())
    for path in paths[:7]:
        path.write_text("no picture")
    with pytest.raises(DataError) as caught:
        _load(folder, max_unreadable=0.4)
    message = str(caught.value)
    assert message.startswith(
        "7 of 15 pictures cannot be read, more than the share of 0.4 that --max-unreadable lets "
        f"pass: {folder}/train/blue/000.jpg ("
    )
    assert message.count("no picture") == 0
    assert message.count(".jpg (") == 5, "the first few"
    assert message.endswith(f" and 2 more; convserve-train check-data {folder} tells more")


@pytest.mark.parametrize(("part", "which"), [("train", "to train on"), ("validation", "held out")])
def test_class_that_loses_its_last_picture_is_named(folder: Path, part: str, which: str) -> None:
    for path in (folder / part / "blue").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=f"no readable picture {which} of the class blue"):
        _load(folder, max_unreadable=0.5)


def test_limit_below_the_number_of_classes_is_refused(folder: Path) -> None:
    with pytest.raises(
        UsageError, match="--limit: expected 2 or more, a picture of each class, got 1"
    ):
        _load(folder, limit=1)


def test_split_that_leaves_a_class_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable picture held out of the class blue, red"):
        _load(draw(tmp_path, {"red": 2, "blue": 2}), split=1e-9)


def test_disk_cache_is_made_once_and_used_again(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train/red/005.jpg").write_text("no picture")
    first = _load(folder, cache="disk", max_unreadable=0.1)
    [kept] = (cache.parent / "photos").iterdir()
    assert len(list(kept.glob("*.pixels"))) == 2, "training and validation"
    assert not list(kept.glob(".*.tmp"))
    decoded = _counted(monkeypatch)
    again = _load(folder, cache="disk", max_unreadable=0.1)
    assert decoded == ["red/005.jpg"], "to say why it is left out"
    assert np.array_equal(_all(again[0].train)[0], _all(first[0].train)[0])
    assert again[0].sha256 == first[0].sha256
    assert again[1] == first[1]
    photos.load(Source(folder, 24, 16, cache="disk", max_unreadable=0.1), None, print)
    assert len(list((cache.parent / "photos").iterdir())) == 2, "other sizes, other files"


def test_pixels_on_disk_are_locked_as_long_as_they_are_used(folder: Path, cache: Path) -> None:
    data, _ = _load(folder, cache="disk")
    [kept] = (cache.parent / "photos").iterdir()
    os.utime(kept, (1, 1))
    gc.collect()
    photos.load(Source(folder, 24, 16, cache="disk"), None, print)
    assert kept.exists(), "not used for years, but it is used"
    del data
    gc.collect()
    photos.load(Source(folder, 8, 8, cache="disk"), None, print)
    assert not kept.exists()


def test_second_training_decodes_nothing_where_nothing_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_survey, "SETTLED_NS", -(10**18))
    monkeypatch.setattr(photo_survey, "LEAST", 1)
    (folder / "train/red/005.jpg").write_text("no picture")
    first = _load(folder, cache="none", max_unreadable=0.1)
    decoded = _counted(monkeypatch)
    again = _load(folder, cache="none", max_unreadable=0.1)
    assert decoded == ["red/005.jpg"], "to say why it is left out"
    assert again[1] == first[1]
    assert again[0].sha256 == first[0].sha256
    assert np.array_equal(_all(again[0].train)[0], _all(first[0].train)[0])


def test_cache_whose_pictures_are_mostly_gone_is_made_anew(folder: Path, cache: Path) -> None:
    _load(folder, cache="disk")
    for path in sorted((folder / "train").rglob("*.jpg")):
        if path.stem != "000":
            path.unlink()
    _load(folder, cache="disk")
    [kept] = (cache.parent / "photos").iterdir()
    sizes = [path.stat().st_size for path in kept.glob("*.pixels")]
    assert sum(sizes) == 7 * (16 * 24 * 3 + 32) + 16 * len(sizes)


def test_disk_cache_adds_what_is_new_and_serves_what_was_moved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _load(folder, cache="disk")
    moved = folder / "train/blue/moved.jpg"
    (folder / "train/red/000.jpg").rename(moved)
    shutil.copy(moved, folder / "train/red/copy.jpg")
    draw(folder / "new", {"red": 1, "blue": 1}, seed=9)
    (folder / "new/red/000.jpg").rename(folder / "train/red/new.jpg")
    shutil.rmtree(folder / "new")
    decoded = _counted(monkeypatch)
    data, _ = _load(folder, cache="disk")
    assert decoded == ["red/new.jpg"]
    paths = sorted((folder / "train").rglob("*.jpg"))
    assert np.array_equal(_all(data.train)[0], photo_reader.pixels_of(paths, 16, 24))


def test_file_that_changes_between_its_digest_and_its_pixels_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identify = photo_reader.identify

    def change(photo: Photo) -> tuple[bytes, tuple[int, int]]:
        found = identify(photo)
        if photo.name == "red/000.jpg":
            shutil.copy(folder / "train/blue/001.jpg", photo.path)
        return found

    monkeypatch.setattr(photo_reader, "identify", change)
    data, lines = _load(folder, cache="disk", max_unreadable=0.2)
    assert len(data.train) == 9
    assert any("000.jpg (it was changed while the training began)" in line for line in lines)


def test_disk_cache_that_cannot_be_written_leaves_nothing_unfinished(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_store.Writer, "add", full)
    refused = (
        "cannot be kept in .*: No space left on device; free some space there; or .* --cache none"
    )
    with pytest.raises(DataError, match=refused):
        _load(folder, cache="disk")
    [kept] = (cache.parent / "photos").iterdir()
    assert [path.name for path in kept.iterdir()] == [".lock"]


def test_held_out_alone_are_those_of_the_training(folder: Path, tmp_path: Path) -> None:
    def alone(folder: Path, split: float | None = None) -> Pixels:
        source = Source(folder, 16, 24, split)
        return _all(photos.load_held_out(source, ["blue", "red"], print))[0]

    def same(one: Pixels, other: Pixels) -> bool:
        return sorted(p.tobytes() for p in one) == sorted(p.tobytes() for p in other)

    data, _ = _load(folder)
    assert same(alone(folder), _all(data.held_out)[0])
    assert same(alone(folder / "train"), _all(data.train)[0]), "a whole folder of class folders"
    one = draw(tmp_path / "one", {"red": 10, "blue": 10})
    assert same(alone(one, split=0.5), _all(_load(one, split=0.5)[0].held_out)[0])


def test_held_out_of_other_classes_is_refused(folder: Path) -> None:
    message = "validation: expected the classes of the bundle, cats, dogs, got blue, red"
    with pytest.raises(DataError, match=message):
        photos.load_held_out(Source(folder, 16, 24), ["cats", "dogs"], print)

import os
from pathlib import Path

import pytest

from convserve_trainer.datasets import photo_reader, photo_survey
from convserve_trainer.datasets.photo_list import Photo
from convserve_trainer.datasets.photo_survey import Survey
from tests.trainer.drawn import draw


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    files = sorted(draw(tmp_path / "data", {"red": 3, "blue": 3}).rglob("*.jpg"))
    return [Photo(path, path.name, 0) for path in files]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Takes the files that are read. Files that were just written are as good as old ones."""
    paths: list[Path] = []
    identify = photo_reader.identify

    def counting(photo: Photo) -> tuple[bytes, tuple[int, int]]:
        paths.append(Path(photo.path))
        return identify(photo)

    monkeypatch.setattr(photo_reader, "identify", counting)
    monkeypatch.setattr(photo_survey, "SETTLED_NS", -(10**18))
    monkeypatch.setattr(photo_survey, "LEAST", 1)
    return paths


def test_second_survey_reads_what_is_new_or_changed_alone(
    photos: list[Photo], read: list[Path], tmp_path: Path
) -> None:
    first = Survey(tmp_path)
    found = list(first.find(photos).table)
    assert sorted(read) == [Path(photo.path) for photo in photos]
    assert first.save(whole=True) is None
    assert first.decoded().size == 0
    read.clear()
    second = Survey(tmp_path)
    assert list(second.find(photos).table) == found
    assert read == []
    Path(photos[2].path).write_bytes(photos[1].path.read_bytes())
    times = photos[3].path.stat()
    Path(photos[3].path).write_bytes(photos[0].path.read_bytes())
    os.utime(photos[3].path, ns=(times.st_atime_ns, times.st_mtime_ns))
    third = list(Survey(tmp_path).find(photos).table)
    assert sorted(read) == [Path(photos[2].path), Path(photos[3].path)]
    assert third[2].sha256 == found[1].sha256
    assert third[3].sha256 == found[0].sha256
    assert third[4:] == found[4:]


def test_file_that_changed_a_moment_ago_is_read_again(
    photos: list[Photo], read: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_survey, "SETTLED_NS", 10**18)
    first = Survey(tmp_path)
    first.find(photos)
    first.save(whole=True)
    read.clear()
    Survey(tmp_path).find(photos)
    assert sorted(read) == [Path(photo.path) for photo in photos]


def test_what_decodes_is_kept_by_content(
    photos: list[Photo], read: list[Path], tmp_path: Path
) -> None:
    first = Survey(tmp_path)
    table = first.find(photos).table
    first.save(whole=True)
    first.note_decoded(table.contents()[:4])
    first.save(whole=True)
    second = Survey(tmp_path)
    assert set(second.decoded().tolist()) == set(table.contents()[:4].tolist())


def test_part_of_a_set_forgets_nothing_and_the_whole_what_is_gone(
    photos: list[Photo], read: list[Path], tmp_path: Path
) -> None:
    first = Survey(tmp_path)
    first.find(photos[:3])
    first.save(whole=False)
    second = Survey(tmp_path)
    second.find(photos[3:])
    second.save(whole=False)
    read.clear()
    third = Survey(tmp_path)
    third.find(photos)
    assert read == []
    whole = Survey(tmp_path)
    whole.find(photos[:2])
    whole.save(whole=True)
    Survey(tmp_path).find(photos)
    assert sorted(read) == [Path(photo.path) for photo in photos[2:]]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00 nothing", b"something else"])
def test_damaged_survey_is_one_that_knows_nothing(
    photos: list[Photo], read: list[Path], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / photo_survey.NAME).write_bytes(content)
    survey = Survey(tmp_path)
    assert len(survey.find(photos).table) == len(read) == 6
    assert survey.save(whole=True) is None
    read.clear()
    Survey(tmp_path).find(photos)
    assert read == []


def test_lost_files_are_named_and_the_others_found(
    photos: list[Photo], read: list[Path], tmp_path: Path
) -> None:
    Path(photos[1].path).unlink()
    Path(photos[4].path).unlink()
    Path(photos[4].path).mkdir()
    found = Survey(tmp_path).find(photos)
    assert list(found.lost) == [1, 4]
    assert isinstance(found.lost[1], FileNotFoundError)
    assert isinstance(found.lost[4], IsADirectoryError)
    assert [photo.name for photo in found.table] == [photos[n].name for n in (0, 2, 3, 5)]


def test_small_set_is_not_kept(photos: list[Photo], tmp_path: Path) -> None:
    survey = Survey(tmp_path / "none")
    survey.find(photos)
    assert survey.save(whole=True) is None
    assert not (tmp_path / "none").exists()


def test_folder_that_refuses_is_reported(
    photos: list[Photo], read: list[Path], tmp_path: Path
) -> None:
    survey = Survey(tmp_path / "none")
    survey.find(photos)
    assert survey.save(whole=True) == "No such file or directory"

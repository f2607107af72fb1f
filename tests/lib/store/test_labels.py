"""Labels that move in the file beside the versions of a model, in a folder."""

import json
import multiprocessing
from pathlib import Path

import pytest

from convserve_bundle.folder import list_bundles
from convserve_bundle.labels_file import VersionLabels
from convserve_store.errors import ChangedError, StoreError
from convserve_store.labels import LabelStore, Move, open_labels
from tests.bundles import write_bundle

OPERATORS, MOVES = 4, 5


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with mnist/1, mnist/2 and mnist/3."""
    for version in (1, 2, 3):
        write_bundle(tmp_path / "models", version=version)
    return tmp_path / "models"


@pytest.fixture
def labels(models: Path) -> LabelStore:
    return open_labels(str(models), "models")


def test_label_moves_forth_and_back(labels: LabelStore, models: Path) -> None:
    assert labels.read("mnist") == VersionLabels()
    assert labels.move("mnist", "stable", 1) == Move(1, None)
    assert labels.move("mnist", "stable", 2) == Move(2, 1)
    assert labels.read("mnist") == VersionLabels({"stable": 2}, {"stable": 1})
    assert labels.move("mnist", "stable", 1) == Move(1, 2)
    assert labels.move("mnist", "stable", None) == Move(None, 1)
    assert labels.read("mnist") == VersionLabels()
    assert labels.names() == ["mnist"]
    # A server sees the file, and nothing else that is new.
    listing = list_bundles(models)
    assert listing.labels == {"mnist": models / "mnist/labels.json"}
    assert (listing.problems, sorted(listing.bundles["mnist"])) == ({}, [1, 2, 3])


def test_label_that_does_not_move_is_not_written(labels: LabelStore, models: Path) -> None:
    labels.move("mnist", "stable", 1)
    before = (models / "mnist/labels.json").stat()
    assert labels.move("mnist", "stable", 1) == Move(1, 1)
    assert (models / "mnist/labels.json").stat() == before


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("mnist", 9, r"version: expected one of mnist in .*/models \(1, 2, 3\), got 9"),
        ("cats", 1, r"version: expected one of cats in .*/models \(none\), got 1"),
        ("../mnist", 1, r"model: expected as a model's name 1 to 64 of .*, got '../mnist'"),
        ("mnist", None, r"label: expected one of mnist in .*/models \(canary\), got 'stable'"),
    ],
)
def test_what_cannot_be_is_refused(
    labels: LabelStore, name: str, version: int | None, message: str
) -> None:
    labels.move("mnist", "canary", 3)
    with pytest.raises(StoreError, match=f"^{message}$"):
        labels.move(name, "stable", version)
    assert labels.read("mnist").labels == {"canary": 3}


def test_file_that_is_damaged_is_not_replaced(labels: LabelStore, models: Path) -> None:
    (models / "mnist/labels.json").write_text("{")
    with pytest.raises(StoreError, match=r"models/mnist: labels.json: expected JSON, got "):
        labels.move("mnist", "stable", 1)
    assert (models / "mnist/labels.json").read_text() == "{"


def test_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="^models: expected a folder or a URL as s3://.*, got '"):
        open_labels(str(tmp_path / "none"), "models")


def test_folder_that_cannot_be_written_to_says_so(labels: LabelStore, models: Path) -> None:
    (models / "mnist/.labels.lock").mkdir()
    with pytest.raises(StoreError, match="labels.json cannot be written: Is a directory"):
        labels.move("mnist", "stable", 1)


class Meanwhile:
    """A store of labels in which another operator does something right after each reading."""

    def __init__(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.labels = open_labels(str(models), "models")
        self._other = open_labels(str(models), "models")
        self._moves: list[tuple[str, int]] = []
        files = self.labels._files
        read = files.read

        def read_and_move(name: str) -> object:
            stored = read(name)
            if self._moves:
                label, version = self._moves.pop(0)
                self._other.move(name, label, version)
            return stored

        monkeypatch.setattr(files, "read", read_and_move)

    def does(self, label: str, *versions: int) -> None:
        self._moves = [(label, version) for version in versions]


@pytest.fixture
def meanwhile(models: Path, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(models, monkeypatch)


def test_move_of_another_label_meanwhile_is_kept(meanwhile: Meanwhile) -> None:
    meanwhile.does("canary", 3, 2)
    assert meanwhile.labels.move("mnist", "stable", 1) == Move(1, None)
    found = meanwhile.labels.read("mnist")
    assert found == VersionLabels({"stable": 1, "canary": 2}, {"canary": 3})


def test_move_of_the_same_label_meanwhile_is_not_undone(meanwhile: Meanwhile) -> None:
    meanwhile.labels.move("mnist", "stable", 1)
    meanwhile.does("stable", 3)
    expected = (
        "^label stable of mnist: expected version 1 as it was read, got version 3: somebody else "
        "moves it, too$"
    )
    with pytest.raises(ChangedError, match=expected):
        meanwhile.labels.move("mnist", "stable", 2)
    assert meanwhile.labels.read("mnist") == VersionLabels({"stable": 3}, {"stable": 1})


def test_move_that_always_meets_another_one_gives_up(meanwhile: Meanwhile) -> None:
    meanwhile.does("canary", *[2, 3] * 10)
    with pytest.raises(ChangedError, match="labels.json: expected it as it was read, .* 10 times$"):
        meanwhile.labels.move("mnist", "stable", 1)
    assert "stable" not in meanwhile.labels.read("mnist").labels


def _operate(models: Path, number: int) -> None:
    labels = open_labels(str(models), "models")
    for turn in range(MOVES):
        while True:
            try:
                labels.move("mnist", f"label{number}-{turn}", 1)
                break
            except ChangedError:  # Others were faster ten times in a row.
                continue


def test_no_move_of_several_operators_at_once_is_lost(models: Path) -> None:
    context = multiprocessing.get_context("spawn")
    operators = [
        context.Process(target=_operate, args=(models, number)) for number in range(OPERATORS)
    ]
    for one in operators:
        one.start()
    for one in operators:
        one.join()
    assert [one.exitcode for one in operators] == [0] * OPERATORS
    found = json.loads((models / "mnist/labels.json").read_bytes())["labels"]
    assert len(found) == OPERATORS * MOVES

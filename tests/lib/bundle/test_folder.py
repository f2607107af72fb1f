"""The layout of a models folder, and what is reported of entries that are none."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle, list_bundles, list_versions, not_versions
from tests.bundles import write_bundle


def put(folder: Path, *files: str) -> None:
    for name in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


# The layout


def test_bundles_in_the_layout_are_listed_with_their_files(tmp_path: Path) -> None:
    first = write_bundle(tmp_path, "mnist", 1)
    tenth = write_bundle(tmp_path, "mnist", 10)
    other = write_bundle(tmp_path, "Cats_v2.1-b", 3)
    assert list_bundles(tmp_path).bundles == {
        "mnist": {1: first, 10: tenth},
        "Cats_v2.1-b": {3: other},
    }


def test_empty_folder_lists_nothing(tmp_path: Path) -> None:
    assert list_bundles(tmp_path).bundles == {}


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "mnist/README.md",
        "mnist/2",  # a file
        "mnist/2/weights.h5",
        "mnist/2/model.onnx/part",  # a folder
        "mnist/.2.tmp/model.onnx",
        "mnist/0/model.onnx",
        "mnist/-2/model.onnx",
        "mnist/02/model.onnx",
        "mnist/2.0/model.onnx",
        "mnist/v2/model.onnx",
        "mnist/\N{SUPERSCRIPT TWO}/model.onnx",
        "mnist/\N{ARABIC-INDIC DIGIT TWO}/model.onnx",
        "mnist/1000000000000000000/model.onnx",
        ".hidden/1/model.onnx",
        "lost+found/1/model.onnx",
        "two words/1/model.onnx",
        f"{'x' * 65}/1/model.onnx",
        "1/model.onnx",
        "other/1/",
    ],
)
def test_what_is_no_bundle_is_passed_over(name: str, tmp_path: Path) -> None:
    real = write_bundle(tmp_path, "mnist", 1)
    put(tmp_path, name)
    assert list_bundles(tmp_path).bundles == {"mnist": {1: real}}


@pytest.mark.parametrize("name", ["x" * 64, "0", "a.b_c-d"])
def test_names_at_their_limits_are_listed(name: str, tmp_path: Path) -> None:
    put(tmp_path, f"{name}/999999999999999999/model.onnx")
    assert list(list_bundles(tmp_path).bundles) == [name]


def test_folder_that_is_gone_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_bundles(tmp_path / "none")


def test_folder_that_is_a_file_raises(tmp_path: Path) -> None:
    put(tmp_path, "file")
    with pytest.raises(NotADirectoryError):
        list_bundles(tmp_path / "file")


# What is reported of other entries


@pytest.mark.parametrize(
    ("file", "entry", "words"),
    [
        ("mnist/001/model.onnx", "mnist/001", "expected as a version 1, 2, 3 and so on, .*'001'"),
        ("mnist/v2/model.onnx", "mnist/v2", "expected as a version .*got 'v2'"),
        ("mnist/0/model.onnx", "mnist/0", "expected as a version"),
        (f"mnist/{10**18}/model.onnx", f"mnist/{10**18}", "at most 18 digits"),
        ("my digits/1/model.onnx", "my digits", "expected as a model's name .*got 'my digits'"),
        ("mnist/2/model.onnx/part", "mnist/2", "model.onnx: expected a file"),
        ("1/model.onnx", "", "is the folder of one model: expected the folder above it"),
    ],
)
def test_entry_of_another_form_is_named_with_the_rule(
    file: str, entry: str, words: str, tmp_path: Path
) -> None:
    put(tmp_path, file)
    listing = list_bundles(tmp_path)
    assert listing.bundles == {}
    assert listing.unreadable == set()
    (found,) = listing.problems.items()
    assert found[0] == entry
    assert re.search(words, found[1])


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "mnist/README.md",
        "mnist/2/weights.h5",
        "mnist/.2.tmp/model.onnx",
        "lost+found/",
    ],
)
def test_entry_without_a_model_file_is_not_named(name: str, tmp_path: Path) -> None:
    put(tmp_path, name) if not name.endswith("/") else (tmp_path / name).mkdir()
    assert list_bundles(tmp_path).problems == {}


def test_file_of_another_server_beside_a_model_is_ignored_by_name(tmp_path: Path) -> None:
    for name in ("mnist/1/model.onnx", "mnist/config.pbtxt", "mnist/1/config.pbtxt", "notes.txt"):
        put(tmp_path, name)
    listing = list_bundles(tmp_path)
    assert listing.ignored == {"mnist/config.pbtxt"}
    assert listing.problems == {}
    assert list(listing.bundles) == ["mnist"]


def test_fifo_and_loops_are_named_and_hide_nothing(tmp_path: Path) -> None:
    good = write_bundle(tmp_path, "mnist", 1)
    (tmp_path / "mnist/2").mkdir()
    os.mkfifo(tmp_path / "mnist/2/model.onnx")
    (tmp_path / "mnist/3").symlink_to("3")
    (tmp_path / "loop").symlink_to("loop")
    listing = list_bundles(tmp_path)
    assert listing.bundles == {"mnist": {1: good}}
    assert sorted(listing.problems) == ["loop", "mnist/2", "mnist/3"]
    assert listing.unreadable == {"loop", "mnist/3"}


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Lets an entry raise an error of the system whenever it is looked at (root may read all)."""

    def refuse(name: str, number: int) -> None:
        stat, list_folder = Path.stat, Path.iterdir

        def guarded_stat(path: Path, **options: bool) -> os.stat_result:
            if name in str(path.parent):
                raise OSError(number, os.strerror(number))
            return stat(path, **options)

        def guarded_list(path: Path) -> Iterator[Path]:
            if str(path).endswith(name):
                raise OSError(number, os.strerror(number))
            return iter(list(list_folder(path)))

        monkeypatch.setattr(Path, "stat", guarded_stat)
        monkeypatch.setattr(Path, "iterdir", guarded_list)

    return refuse


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize(
    ("name", "entry", "others"),
    [("/zzz", "zzz", {"aaa": [1, 2], "mnist": [1, 2]}), ("/mnist/1", "mnist/1", None)],
)
def test_unreadable_folder_is_named_and_hides_no_other(
    name: str,
    entry: str,
    others: dict[str, list[int]] | None,
    number: int,
    refuse: Callable[[str, int], None],
    tmp_path: Path,
) -> None:
    for model in ("aaa", "mnist", "zzz"):
        put(tmp_path, f"{model}/1/model.onnx", f"{model}/2/model.onnx")
    refuse(name, number)
    listing = list_bundles(tmp_path)
    expected = others or {"aaa": [1, 2], "mnist": [2], "zzz": [1, 2]}
    assert {model: sorted(there) for model, there in listing.bundles.items()} == expected
    assert listing.unreadable == {entry}
    assert os.strerror(number) in listing.problems[entry]
    assert not listing.knows(entry.partition("/")[0], 1)
    assert listing.knows("aaa", 1)


# One bundle


def test_bundle_is_found_by_file_version_or_model(tmp_path: Path) -> None:
    for version in ("2", "9", "10", "011", ".12.tmp", "latest"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.onnx").touch()
    newest = tmp_path / "10" / "model.onnx"
    assert find_bundle(newest) == find_bundle(tmp_path / "10") == find_bundle(tmp_path) == newest
    assert list_versions(tmp_path) == [2, 9, 10]


def test_bundle_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path / 'none'}: no such file or folder"):
        find_bundle(tmp_path / "none")
    nothing = f"^{tmp_path}: holds neither model.onnx nor a version folder with one"
    with pytest.raises(BundleError, match=f"{nothing}$"):
        find_bundle(tmp_path)
    (tmp_path / "1").mkdir()
    with pytest.raises(BundleError, match="holds neither"):
        find_bundle(tmp_path)


def _versions(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "model.onnx").touch()
    return folder


def test_versions_that_are_none_are_named_with_the_rule(tmp_path: Path) -> None:
    _versions(tmp_path, "001", "v2", ".3.tmp")
    (tmp_path / "notes").mkdir()
    with pytest.raises(
        BundleError, match=r"; not used: 001, v2: expected as a version 1, 2, 3 and so on"
    ):
        find_bundle(tmp_path)
    assert not_versions(_versions(tmp_path, "1", "20")) == ["001", "v2"]
    assert not_versions(tmp_path / "none") == []


def test_folder_of_models_is_named_as_that(tmp_path: Path) -> None:
    for name in ("my digits", "mnist"):
        _versions(tmp_path / name, "1", "v2")
    message = "; it is the folder of the models mnist, my digits: name one of them$"
    with pytest.raises(BundleError, match=message):
        find_bundle(tmp_path)


def test_version_that_the_server_does_not_see_is_no_version(tmp_path: Path) -> None:
    put(tmp_path, f"mnist/{10**20}/model.onnx")
    assert list_bundles(tmp_path).bundles == {}
    assert list_versions(tmp_path / "mnist") == []
    assert not_versions(tmp_path / "mnist") == [f"{10**20}"]

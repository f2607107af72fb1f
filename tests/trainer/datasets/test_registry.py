"""The formats of data sets: what each must have, and how one is added."""

import argparse
import inspect
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from convserve_imaging import PIXELS
from convserve_protos.bundle_pb2 import IMAGE_KIND_PIXELS, ImageKind, InputSpec, Manifest
from convserve_trainer.cli import data_options
from convserve_trainer.cli.parser import parser
from convserve_trainer.datasets import registry
from convserve_trainer.datasets.pictures import ArrayPictures, Data, Pictures, Source
from convserve_trainer.datasets.registry import DIGITS, FORMATS, PHOTOS, TASKS, Format
from convserve_trainer.errors import UsageError
from convserve_trainer.main import main
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe
from tests.trainer.drawn import draw
from tests.trainer.idx_files import write


@pytest.mark.parametrize("name", [entry.name for entry in FORMATS])
def test_module_of_every_format_has_what_a_reader_has(name: str) -> None:
    [entry] = [entry for entry in FORMATS if entry.name == name]
    for function in ("match", "load", "held_out"):
        found = inspect.signature(getattr(entry.reader, function)).parameters
        wanted = inspect.signature(getattr(registry.Reader, function)).parameters
        assert list(found) == list(wanted)[1:]


def test_tasks_are_those_of_recipes_and_share_no_kind_of_pictures() -> None:
    names = tuple(task.name for task in TASKS)
    assert names == recipe_files.TASKS
    assert set(names) == set(Recipe.__annotations__["task"].__args__)
    kinds = [kind for task in TASKS for kind in task.kinds]
    assert sorted(kinds) == sorted(set(ImageKind.values()) - {0})


def test_format_is_known_by_what_is_in_the_folder(tmp_path: Path) -> None:
    idx, photos, listed, *_ = FORMATS
    digits, classes = write(tmp_path / "digits"), draw(tmp_path / "classes", {"red": 1, "blue": 1})
    assert (idx.reader.match(digits), photos.reader.match(digits)) == (True, False)
    assert (idx.reader.match(classes), photos.reader.match(classes)) == (False, True)
    assert [entry for entry in FORMATS if entry.reader.match(classes)] == [photos]
    (tmp_path / "Set.CSV").touch()
    matches = [entry.reader.match(tmp_path / "Set.CSV") for entry in FORMATS]
    assert matches == [entry is listed for entry in FORMATS]
    for entry in FORMATS:
        assert not entry.reader.match(tmp_path / "none")


def test_option_of_another_task_is_refused() -> None:
    registry.check_options(PHOTOS, ["size", "cache", "unknown"])
    with pytest.raises(UsageError, match="^--max-unreadable: expected with photos only, got digi"):
        registry.check_options(DIGITS, ["labels", "max_unreadable"])


# A format that is added: a module and its line


class Rows(ModuleType):
    """Rows of label and four pixels, in rows.csv."""

    def match(self, folder: Path) -> bool:
        return (folder / "rows.csv").is_file()

    def load(self, source: Source, limit: int | None, say: registry.Say) -> Data:
        assert source.folder is not None
        rows = np.loadtxt(source.folder / "rows.csv", np.uint8, delimiter=",")
        pictures = ArrayPictures(rows[:, 1:].reshape(-1, 2, 2, 1), rows[:, 0].astype(np.int64))
        spec = InputSpec(height=2, width=2, channels=1, kind=IMAGE_KIND_PIXELS, resize=PIXELS)
        say(f"{len(rows)} rows")
        return Data("rows", ("a", "b"), spec, pictures, pictures, "0" * 64)

    def held_out(self, source: Source, manifest: Manifest, say: registry.Say) -> Pictures:
        return self.load(source, None, say).held_out


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "convserve_trainer.datasets.rows", Rows("rows"))
    monkeypatch.setattr(registry, "FORMATS", (*FORMATS, Format("rows", DIGITS, "rows")))
    (tmp_path / "rows.csv").write_text("0,1,2,3,4\n1,5,6,7,8\n")
    return tmp_path


def _options(*arguments: str) -> argparse.Namespace:
    return parser().parse_args(arguments)


def test_added_format_is_trained_on_and_evaluated(rows: Path) -> None:
    lines: list[str] = []
    options = _options("fit", "digits", "--data", str(rows))
    recipe = recipe_files.find("lecture", "digits")
    data = data_options.training(options, recipe, lines.append)()
    assert (data.what, data.labels, lines) == ("rows", ("a", "b"), ["2 rows"])
    manifest = Manifest(labels=data.labels, input=data.spec)
    options = _options("evaluate", "models/rows", "--data", str(rows))
    assert len(data_options.held_out(options, manifest, lines.append)) == 2


def test_added_format_hides_none_of_the_others(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert registry.find_format(DIGITS, write(tmp_path / "idx")).name == "idx"
    assert main(["fit", "digits", "--data", str(tmp_path / "none")]) == 2
    assert "no folder" in capsys.readouterr().err

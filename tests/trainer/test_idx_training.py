"""The whole way of an IDX data set, from four files to a bundle, with a small net."""

import argparse
import contextlib
import io
import json
from pathlib import Path

import pytest

from convserve_trainer.bundles import bundle
from convserve_trainer.cli import data_options
from convserve_trainer.cli.parser import parser
from convserve_trainer.main import main
from convserve_trainer.recipes import recipe_files
from tests.trainer.idx_files import write

SMALL = """
task = "digits"
net = [{ layer = "conv", filters = 6 }, { layer = "global_average" }]
learning_rate = 0.05
epochs = 4
batch_size = 16
min_accuracy = 0.9
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with data, recipe and models of a net trained on it, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    (write(folder / "of_colours") / "labels.txt").write_text("red\ngreen\nblue\n")
    (folder / "small.toml").write_text(SMALL)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(_fit(folder)) == 0
    return folder, output.getvalue()


def _fit(folder: Path, *more: str) -> list[str]:
    command = ["fit", "digits", "--data", str(folder / "of_colours")]
    return [*command, "--recipe", str(folder / "small.toml"), "--models", str(folder / "m"), *more]


def test_fit_publishes_a_bundle_that_says_what_its_pixels_are(trained: tuple[Path, str]) -> None:
    folder, output = trained
    manifest = bundle.read_manifest(folder / "m" / "of-colours" / "1")
    assert list(manifest.labels) == ["red", "green", "blue"]
    spec = manifest.input
    assert (spec.height, spec.width, spec.channels) == (12, 16, 3)
    assert spec.resize == "pixels/1"
    assert "60 pictures to train on and 30 held out, 12 x 16 RGB, 3 classes; not MNIST's" in output
    assert "accuracy floor  90.00% of the held-out pictures" in output, "the user's own recipe's"


def test_evaluate_and_compare_take_the_same_data(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    data, version = ["--data", str(folder / "of_colours"), "--json"], str(folder / "m/of-colours/1")
    assert main(["evaluate", version, *data]) == 0
    score = json.loads(capsys.readouterr().out)
    assert score["correct"] == bundle.read_manifest(Path(version)).metrics["correct"]
    assert score["total"] == 30
    assert main(["compare", version, version, *data]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["both"] + compared["neither"] == 30


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_labels_other_than_the_bundles_are_refused(
    command: str, trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    bundles = [str(folder / "m" / "of-colours")] * (2 if command == "compare" else 1)
    more = ["--data", str(folder / "of_colours"), "--labels", "green,red,blue"]
    assert main([command, *bundles, *more]) == 1
    assert capsys.readouterr().err.endswith(
        "of_colours: expected the classes of the bundle of-colours, red, green, blue, got green, "
        "red, blue\n"
    )
    assert main([command, *bundles]) == 2
    message = "--data: expected the folder of the data set that the bundle of-colours was trained"
    assert message in capsys.readouterr().err


def test_unless_published_knows_the_same_data_and_other_names(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    assert main(_fit(folder, "--unless-published")) == 0
    out = capsys.readouterr().out
    assert out.endswith("model.onnx is published already, from these settings and data\n")
    more = ["--unless-published", "--labels", "r,g,b", "--version", "1"]
    assert main(_fit(folder, *more)) == 1
    assert "differs from this training in: labels or input\n" in capsys.readouterr().out


def test_pictures_too_small_for_the_net_are_one_line(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    command = ["fit", "digits", "--data", str(folder / "of_colours"), "--models", str(folder / "m")]
    assert main([*command, "--name", "other"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "convserve-train: pictures: expected 18 x 18 pixels or more for the net of recipe "
        "lecture, got 12 x 16"
    )
    assert error.count("\n") == 1
    assert not (folder / "m" / "other").exists()


@pytest.mark.parametrize(
    ("more", "lifted"),
    [
        ([], True),
        (["--min-accuracy", "0.9"], False),
        (["--set", "min_accuracy=0.9"], False),
        (["--recipe", "small.toml"], False),
    ],
)
def test_floor_of_a_recipe_that_comes_along_is_for_mnist(
    more: list[str], lifted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "grey", shape=(28, 28))
    (tmp_path / "small.toml").write_text(SMALL)
    options = _options("fit", "digits", "--data", "grey", *more)
    recipe = recipe_files.find(options.recipe, "digits")
    assert data_options.training(options, recipe, print)().ignore_accuracy_floor is lifted


def _options(*arguments: str) -> argparse.Namespace:
    return parser().parse_args(arguments)


def test_model_is_named_as_the_folder_unless_it_is_mnist(
    tmp_path: Path, mnist_folder: Path
) -> None:
    write(tmp_path / "fashion_2")
    write(tmp_path / "-")
    names = [
        data_options.model_name(_options("fit", "digits", "--data", str(folder)))
        for folder in (tmp_path / "fashion_2", tmp_path / "-", mnist_folder)
    ]
    assert names == ["fashion-2", "pictures", "mnist"]
    assert data_options.model_name(_options("fit", "digits")) == "mnist"


def test_labels_are_refused_for_photos(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "photos", "--data", "any", "--labels", "a,b"]) == 2
    assert capsys.readouterr().err.startswith(
        "convserve-train: --labels: expected with digits only, got photos"
    )


def test_size_of_digits_is_that_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    for setting in ("channels=1", "height=30"):
        assert main(["fit", "digits", "--set", setting]) == 2
        assert capsys.readouterr().err.count("\n") == 1

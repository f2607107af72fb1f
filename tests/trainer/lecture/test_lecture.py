"""The lecture by its commands: on a small trained net, at a tiny scale."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_bundle.errors import BundleError
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, InputSpec, Manifest
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.html import figures
from convserve_trainer.html.page import About, page
from convserve_trainer.html.section import Section, Table
from convserve_trainer.lecture import grad_cam, mistakes, topics, trials
from convserve_trainer.lecture import net as nets
from convserve_trainer.lecture.material import Material, Photographs
from convserve_trainer.lecture.net import Net
from convserve_trainer.lecture.progress import LectureProgress
from convserve_trainer.lecture.scales import SCALES, Scale
from convserve_trainer.main import main
from convserve_trainer.nets import keras_backend, keras_file, models
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe
from tests.trainer.conftest import Published
from tests.trainer.drawn import draw_parts

TINY = Scale("quick", (100,), 2, 5, 300, 50, 60, 2, 1)
VOID = {"meta", "img", "source", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """A page, with what it is not allowed to have.

    Attributes:
        wrong: tags that are not closed where they should be.
        loaded: addresses of what it loads.
        ids: of elements.
        targets: of links within the page.
        images: texts that stand for images.
    """

    def __init__(self, content: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.images: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        self.wrong += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids += [named["id"]] if "id" in named else []
        self.loaded += [named[name] for name in ("src", "srcset") if name in named]
        if tag == "a":
            self.targets.append(named["href"])
        if tag == "img":
            self.images.append(named.get("alt", ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Scale:
    monkeypatch.setitem(SCALES, "quick", TINY)
    return TINY


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "red_blue"
    return draw_parts(folder, {"red": 8, "blue": 8}, {"red": 6, "blue": 6})


@pytest.fixture(scope="module")
def photo_models(photo_folder: Path) -> Path:
    models = photo_folder.parent / "models"
    command = ["fit", "photos", "--data", str(photo_folder), "--models", str(models)]
    command += ["--recipe", "quick", "--size", "22x24", "--batch-size", "8", "--steps", "2"]
    assert main([*command, "--epochs", "1"]) == 0
    return models / "red-blue"


def test_lecture_is_one_page_that_loads_nothing(
    published: Published,
    mnist_folder: Path,
    photo_folder: Path,
    photo_models: Path,
    tiny: Scale,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out" / "lecture"
    command = ["lecture", str(published.models / "mnist"), "--data", str(mnist_folder)]
    command += ["--photos", str(photo_models), "--photo-data", str(photo_folder)]
    assert main([*command, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out / 'index.html'}: ")
    assert "  calibration: " in captured.err
    assert " left\n" in captured.err

    content = (out / "index.html").read_text()
    read = Page(content)
    assert read.wrong == []
    assert all(address.startswith("data:image/") for address in read.loaded)
    assert not re.search(r"@import|url\(|<script|<link", content)
    assert read.targets == [f"#{name}" for name in topics.NAMES]
    assert set(topics.NAMES) <= set(read.ids)
    assert len(set(read.ids)) == len(read.ids)
    assert len(read.images) >= 12
    assert all(len(text) > 40 for text in read.images)
    assert "prefers-color-scheme: dark" in content
    assert f"--out {out}" in content, "the command that made it"
    assert "the net&#x27;s: the same" in content, "digest of the data"
    figures = {path.stem for path in out.glob("*.svg")}
    assert len(figures) == len(read.images)
    assert figures == {path.stem for path in out.glob("*.png")}
    assert {path.suffix for path in out.iterdir()} == {".svg", ".png", ".html"}
    photographic = ("errors-grad-cam", "kernels-photograph", "activations-photographs")
    for text in (*photographic, "convnet", "convolution-animated", "jpegs-batch", "jpegs-training"):
        assert text in figures
    for text in (
        "output = activation(filter + bias)",
        "A dense layer learns global patterns",
        "a hard-coded max",
        "to_categorical",
        "layers.Conv2D(32, (3, 3), activation=&quot;relu&quot;)",
        "keras.utils.image_dataset_from_directory(",
        "0.0317",
        "0.9902",
    ):
        assert text in content, text


def test_explain_prints_the_numbers_and_writes_the_figure(
    published: Published,
    mnist_folder: Path,
    tiny: Scale,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["explain", "convolution", str(published.bundle), "--data", str(mnist_folder)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "CONVOLUTION BY HAND" in output
    assert re.search(r"^28 +3 +1 +valid +26 +26$", output, re.MULTILINE)
    assert re.search(r"^conv2d_1 +11 x 11 x 64 .*18,496  18,496$", output, re.MULTILINE)
    assert "On every layer the formula counts what Keras counts; 93,322 in all." in output
    assert (tmp_path / "out" / "convolution.svg").read_bytes().startswith(b"<?xml")
    assert (tmp_path / "out" / "convolution.png").read_bytes().startswith(b"\x89PNG")


def test_explain_without_photographs_says_how_to_get_them(
    published: Published,
    mnist_folder: Path,
    tiny: Scale,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["explain", "kernels", str(published.bundle), "--data", str(mnist_folder)]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "name a folder of photographs with --photo-data DIR" in capsys.readouterr().out
    assert not (tmp_path / "kernels-photograph.svg").exists()


def test_net_for_photographs_is_no_net_for_digits(
    published: Published, photo_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lecture", str(photo_models)]) == 1
    message = capsys.readouterr().err
    assert "input.kind: expected digits, got photo; " in message
    assert message.count("\n") == 1
    assert main(["lecture", str(published.bundle), "--photos", str(published.bundle)]) == 1
    assert "input.kind: expected photo, got digits; " in capsys.readouterr().err


def test_bundle_without_its_keras_net_says_to_train_it_again(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(published.bundle.read_bytes())
    assert main(["explain", "shift", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"convserve-train: {tmp_path} has no net.keras")
    assert "train it again" in message
    (tmp_path / "net.keras").write_bytes(b"PK no net")
    assert main(["explain", "shift", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "net.keras is damaged" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["none"], 2, "none: no such file or folder"),
        (["BUNDLE", "--data", "none"], 2, "no folder none"),
        (["BUNDLE", "--photo-data", "none"], 2, "no folder none"),
        (["BUNDLE", "--data", "MNIST", "--out", "file"], 1, "file: "),
    ],
)
def test_error_is_one_line(
    options: list[str],
    status: int,
    message: str,
    published: Published,
    mnist_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    named = {"BUNDLE": str(published.bundle), "MNIST": str(mnist_folder)}
    assert main(["lecture", *(named.get(option, option) for option in options)]) == status
    error = capsys.readouterr().err
    assert error.startswith(f"convserve-train: {message}")
    assert error.count("\n") == 1


def test_published_net_is_the_net_beside_it_without_its_optimizer(
    published: Published, dataset: Dataset
) -> None:
    net = nets.load(published.bundle, IMAGE_KIND_DIGITS)
    assert not net.model.compiled
    right = net.answers(dataset.test_images).argmax(axis=1) == dataset.test_labels
    assert int(right.sum()) == net.manifest.metrics["keras_correct"]
    size = published.bundle.with_name(keras_file.NAME).stat().st_size
    assert size < 1.5 * 4 * net.model.count_params(), "the optimizer's slots are not in it"
    apart = net.answers(dataset.test_images[:9]) - net.from_floats.predict(
        dataset.test_images[:9].astype(np.float32), verbose=0
    )
    assert np.abs(apart).max() < 1e-6


def _material(dataset: Dataset, recipe: Recipe) -> Material:
    spec = InputSpec(height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS)
    manifest = Manifest(input=spec, labels=[str(digit) for digit in range(10)])
    manifest.training.recipe_json = recipe.to_json()
    manifest.training.epochs = 1
    small = replace(
        dataset.limited(200),
        test_images=dataset.test_images[:60],
        test_labels=dataset.test_labels[:60],
    )
    model = models.for_inference(models.build(recipe, spec, 10, 200), recipe, spec)
    net = Net(Path("m/1/model.onnx"), manifest, model)
    return Material(net, small, "", None, None, TINY, _check_share)


def _check_share(share: float, what: str) -> None:
    assert 0 <= share <= 1, what


LECTURE = recipe_files.find("lecture", "digits")
DENSE = LECTURE.override({"net": [{"layer": "flatten"}]})
RESIDUAL = LECTURE.override(
    {
        "net": [
            {"layer": "conv", "filters": 4, "norm": "batch"},
            {"layer": "residual", "filters": 6, "stride": 2},
            {"layer": "global_average"},
            {"layer": "dropout", "rate": 0.2},
        ],
        "augmentation.shift": 0.1,
        "schedule": "cosine",
        "warmup_epochs": 1,
        "label_smoothing": 0.1,
        "validation_share": 0.1,
        "patience": 2,
    }
)


@pytest.mark.parametrize("recipe", [RESIDUAL, DENSE], ids=["residual", "dense"])
def test_every_topic_accepts_other_nets(
    recipe: Recipe, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = _material(dataset, recipe)
    monkeypatch.setattr(figures, "_saved", lambda *_: b"")  # the commands' tests see to that
    sections = [topics.find(name)(material) for name in topics.NAMES]
    assert [section.topic for section in sections] == list(topics.NAMES)
    text = " ".join("\n".join(map(str, sections)).split())
    expected = ("has no convolution", "has no pooling layer")
    if recipe is RESIDUAL:
        expected = ("Its augmentation changes pictures in training", "do not fit together")
    for phrase in expected:
        assert phrase in text


def test_dense_net_has_as_many_parameters(published: Published) -> None:
    net = nets.load(published.bundle, IMAGE_KIND_DIGITS)
    rival = trials.build(net, trials.rival(net), 1_280)
    ours, theirs = trials.trainable(net.model), trials.trainable(rival)
    assert ours == net.model.count_params() == 93_322
    assert abs(theirs / ours - 1) <= trials.TOLERANCE
    assert trials.units(784, 10, 795 * 20 + 10) == 20


def test_trial_keeps_the_recipe_but_for_its_length() -> None:
    trial = trials.for_steps(RESIDUAL, 40, seed=3)
    kept = ("net", "augmentation", "schedule", "label_smoothing", "learning_rate", "batch_size")
    assert all(getattr(trial, name) == getattr(RESIDUAL, name) for name in kept)
    assert (trial.epochs, trial.steps, trial.seed) == (1, 40, 3)
    assert trial.warmup_epochs == pytest.approx(1 / 5)
    assert not trial.validated
    assert trials.steps(LECTURE, 1_000, 2) == 2 * 16
    assert "rmsprop at 0.001 falling as a cosine, batches of 64" in trials.described(RESIDUAL)


def test_recipe_of_another_version_is_one_line(dataset: Dataset) -> None:
    net = _material(dataset, DENSE).net
    net.manifest.training.recipe_json = '{"net": "lecture"}'
    with pytest.raises(BundleError, match=r"^m/1/model.onnx: its recipe cannot be read \(.*again"):
        trials.recipe(net)


def test_trainings_from_a_seed_are_alike_and_from_another_are_not(dataset: Dataset) -> None:
    net = _material(dataset, DENSE).net
    weights = []
    for seed in (1, 1, 2):
        recipe = trials.for_steps(DENSE, 4, seed)
        model = trials.build(net, recipe, 90)
        trials.fit(model, dataset.train_images[:90], dataset.train_labels[:90], recipe)
        weights.append(model.get_weights()[0])
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_grad_cam_finds_the_half_that_speaks() -> None:
    """A net that only adds up brightness on the left says so."""
    keras = keras_backend.load()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            layers.Conv2D(1, 1, use_bias=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid", use_bias=False),
        ]
    )
    model.set_weights([np.full((1, 1, 3, 1), 0.01), np.ones((1, 1))])
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[:, :, :4] = 200
    net = Net(Path("m/1/model.onnx"), Manifest(), model)
    heat = grad_cam.maps(net, pixels, np.array([1, 0]))
    assert heat[0, :, :4].min() == pytest.approx(1)
    assert heat[0, :, 4:].max() == 0
    assert heat[1].max() == 0, "nothing speaks for the other class"
    assert model.layers[-1].activation is keras.activations.sigmoid


def test_one_right_and_one_wrong_photograph_of_each_class_is_looked_at() -> None:
    sure = np.array([0.9, 0.8, 0.95, 0.7, 0.6, 0.99])
    correct = np.array([True, True, False, False, True, True])
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert mistakes.one_of_each(sure, correct, labels).tolist() == [0, 2, 4, 3, 5]


def test_page_escapes_its_content() -> None:
    table = Table(("<a>",), (("<b>",),), 'a "caption"')
    section = Section("one", "A & B", ["`x < 1` <script>", table])
    content = page([section], About("<net>", [("<name>", "<value>")]))
    assert Page(content).wrong == []
    assert "<code>x &lt; 1</code> &lt;script&gt;" in content
    assert not {"script", "b", "net", "value"} & set(Page(content).tags)


def test_time_left_follows_from_the_costs() -> None:
    lines: list[str] = []

    class Stream:
        def write(self, text: str) -> None:
            lines.append(text)

        def flush(self) -> None:
            pass

    times = iter([0.0, 0.0, 10.0, 11.0, 40.0])
    stream: Any = Stream()
    progress = LectureProgress(
        stream, ["a", "b"], {"a": 1, "b": 3, "c": 9}, clock=lambda: next(times)
    )
    progress.start("a")
    progress.done(0.5, "half")
    progress.done(0.6, "too soon to tell")
    progress.start("b")
    printed = "".join(lines).splitlines()
    assert printed == [
        "  0%  a: begun",
        " 12%  a: half; about 70 s left",
        " 25%  b: begun; about 2 minutes left",
    ]


def test_photographs_are_those_of_the_material(photo_folder: Path) -> None:
    from convserve_trainer.lecture.gather import _photographs

    found: Photographs = _photographs(photo_folder, None, TINY, lambda line: None)
    assert found.names == ("blue", "red")
    assert found.pixels.shape == (12, 150, 150, 3)
    assert sorted(found.labels.tolist()) == [0] * 6 + [1] * 6
    assert max(found.large.shape) == 320

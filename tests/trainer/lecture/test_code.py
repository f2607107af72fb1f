"""The code that the lecture prints is code that works, and the moving kernel is right."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, InputSpec
from convserve_trainer.lecture import animation, code, convolution, sketch
from convserve_trainer.nets import keras_backend, models
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe

LECTURE = recipe_files.find("lecture", "digits")
SPEC = InputSpec(height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS)
BRANCHES = LECTURE.override({"net": [{"layer": "residual", "filters": 4}, {"layer": "flatten"}]})


def _run(text: str, **known: object) -> dict[str, object]:
    keras = keras_backend.load()
    names: dict[str, object] = {"keras": keras, "layers": keras.layers, **known}
    exec(text, names)
    return names


def test_code_of_a_net_makes_that_net() -> None:
    built = models.for_inference(models.build(LECTURE, SPEC, 10, 200), LECTURE, SPEC)
    text = code.net_code(built)
    assert text is not None
    made = _run(text)["net"]
    assert [weights.shape for weights in made.get_weights()] == [  # type: ignore[attr-defined]
        weights.shape for weights in built.get_weights()
    ]
    made.set_weights(built.get_weights())  # type: ignore[attr-defined]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    answers = [np.asarray(each(pixels.astype(np.float32))) for each in (made, built)]  # type: ignore[operator]
    assert np.abs(answers[0] - answers[1]).max() < 1e-6


def test_code_of_a_training_compiles_and_fits() -> None:
    recipe = LECTURE.override(epochs=1)
    net = code.net_code(models.build(recipe, SPEC, 10, 200))
    assert net is not None
    pixels = np.zeros((64, 28, 28, 1), np.float32)
    labels = np.eye(10, dtype=np.float32)[np.arange(64) % 10]
    _run(f"{net}\n{code.training_code(recipe)}", train_images=pixels, train_labels=labels)


def test_net_that_branches_has_no_list_of_layers() -> None:
    built = models.build(BRANCHES, SPEC, 10, 200)
    assert code.net_code(built) is None
    assert sketch.blocks(built)[0] == sketch.Block("picture", (28, 28, 1), "input")


@pytest.mark.parametrize(
    ("recipe", "stated"),
    [
        (LECTURE, ""),
        (recipe_files.find("best", "digits"), ", but for its augmentation, schedule"),
    ],
)
def test_what_the_code_leaves_out_is_stated(recipe: Recipe, stated: str) -> None:
    assert code.left_out(recipe).startswith(stated)
    assert bool(code.left_out(recipe)) == bool(stated)


def test_kernel_moves_over_every_position_with_its_sum() -> None:
    pixels = np.arange(25.0).reshape(5, 5) / 10
    output = convolution.convolved(pixels, convolution.VERTICAL_EDGE)
    figure = animation.figure(pixels, convolution.VERTICAL_EDGE, output, "made up")
    assert figure.shown[0] != figure.shown[1]
    assert figure.files["svg"] == figure.shown[0]
    for content in figure.shown:
        root = ElementTree.fromstring(content)
        groups = [each for each in root if each.get("class", "").startswith("position")]
        assert len(groups) == 9
        sums = [texts[-1].text or "" for texts in (list(group) for group in groups)]
        assert [float(text.rpartition("= ")[2]) for text in sums] == pytest.approx(
            [float(f"{value:.2g}") for value in output.ravel()]
        )
        assert "script" not in content.decode()
        assert "prefers-reduced-motion" in content.decode()
        delays = re.findall(r"animation-delay:([\d.]+)s", content.decode())
        assert [float(delay) for delay in delays] == pytest.approx(
            [animation.STEP_S * each for each in range(9)]
        )

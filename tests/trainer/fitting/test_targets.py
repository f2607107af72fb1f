"""The loss of mixed labels and of teachers, against NumPy; and resumes of such trainings."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.bundles import bundle
from convserve_trainer.errors import UsageError
from convserve_trainer.fitting import targets
from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.fitting.targets import Lesson
from convserve_trainer.fitting.tensorflow_steps import Steps
from convserve_trainer.main import main
from convserve_trainer.nets import keras_file, models, teachers
from convserve_trainer.nets.mixing import Mixing
from convserve_trainer.recipes.distillation import Distillation
from convserve_trainer.runs import run_key
from tests.trainer.conftest import Small
from tests.trainer.teaching import PLAIN, teacher

SPEC = InputSpec(height=12, width=16, channels=1)
LABELS = ("a", "b", "c")
Array = npt.NDArray[np.float32]


def _batch(count: int = 6) -> tuple[npt.NDArray[np.uint8], Array]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 12, 16, 1), np.uint8)
    return pixels, np.eye(3, dtype=np.float32)[np.arange(count) % 3]


def _softened(probabilities: Array, temperature: float) -> Array:
    powers = probabilities.astype(np.float64) ** (1 / temperature)
    softened: Array = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return softened


@pytest.mark.parametrize(("share", "temperature"), [(1.0, 1.0), (0.3, 2.5)])
def test_loss_is_that_of_the_labels_and_of_the_mean_of_the_teachers(
    share: float, temperature: float, tmp_path: Path
) -> None:
    paths = [teacher(tmp_path, SPEC, 3, seed) for seed in (5, 6)]
    settings = {"teachers": [str(path) for path in paths], "share": share}
    recipe = PLAIN.override({"distillation": settings | {"temperature": temperature}})
    pixels, labels = _batch()
    net = models.build(recipe, SPEC, 3, pictures=6)
    student = np.array(net(pixels))
    soft = np.mean(
        [_softened(np.array(keras_file.read(path)(pixels)), temperature) for path in paths], axis=0
    )
    hard = -np.log(student[labels > 0]).mean()
    taught = -(soft * np.log(_softened(student, temperature))).sum(axis=1).mean()
    expected = (1 - share) * hard + share * temperature**2 * taught
    found = teachers.load(recipe.distillation, SPEC, LABELS)
    assert found is not None
    steps = Steps(net, StepChunker(), lesson=Lesson(found, recipe.distillation))
    loss = steps.train([(pixels, labels)])[0]["loss"]
    assert loss == pytest.approx(expected, rel=1e-4)


def test_teachers_are_not_trained_and_the_student_becomes_like_them(tmp_path: Path) -> None:
    path = teacher(tmp_path, SPEC, 3)
    recipe = PLAIN.override({"distillation": {"teachers": [str(path)], "share": 1.0}})
    pixels, _ = _batch()
    misleading = np.eye(3, dtype=np.float32)[[0] * 6]
    found = teachers.load(recipe.distillation, SPEC, LABELS)
    assert found is not None
    before = np.array(found.answers(pixels / np.float32(255)))
    net = models.build(recipe, SPEC, 3, pictures=6)
    steps = Steps(net, StepChunker(), lesson=Lesson(found, recipe.distillation))
    apart = np.abs(np.array(net(pixels)) - before).max()
    steps.train([(pixels, misleading)] * 200)
    assert np.array_equal(np.array(found.answers(pixels / np.float32(255))), before)
    assert np.abs(np.array(net(pixels)) - before).max() < apart / 3
    assert len(net.trainable_weights) == 4, "the student's own alone"


def test_teachers_answer_the_pictures_as_they_are_changed(tmp_path: Path) -> None:
    """Of pictures that are all black after the change, teachers say one thing alone."""
    path = teacher(tmp_path, SPEC, 3)
    settings = {"teachers": [str(path)], "share": 1.0}
    recipe = PLAIN.override({"distillation": settings, "augmentation.levels": 1.0})
    pixels, labels = _batch()
    net = models.build(recipe, SPEC, 3, pictures=6)
    [mixing] = [layer for layer in net.layers if isinstance(layer, Mixing)]
    found = teachers.load(recipe.distillation, SPEC, LABELS)
    assert found is not None
    with targets.given(net, Lesson(found, recipe.distillation)):
        answers = net(pixels, training=True)
        loss = float(net.compute_loss(pixels, labels, answers))
    changed = np.array(mixing.pictures)
    assert np.abs(changed - pixels / 255).max() > 0.1
    soft = np.array(found.answers(changed))
    assert loss == pytest.approx(-(soft * np.log(np.array(answers))).sum(axis=1).mean(), rel=1e-4)


def test_loss_of_mixed_pictures_is_that_of_mixed_labels() -> None:
    recipe = PLAIN.override({"augmentation.mixup": 0.5, "augmentation.cutmix": 0.5})
    pixels, labels = _batch()
    net = models.build(recipe, SPEC, 3, pictures=6)
    [mixing] = [layer for layer in net.layers if isinstance(layer, Mixing)]
    with targets.given(net, None):
        answers = net(pixels, training=True)
        loss = float(net.compute_loss(pixels, labels, answers))
    kept = np.array(mixing.kept)[:, np.newaxis]
    mixed = kept * labels + (1 - kept) * np.roll(labels, 1, axis=0)
    assert np.abs(mixed - labels).max() > 0.02
    assert loss == pytest.approx(-(mixed * np.log(np.array(answers))).sum(axis=1).mean(), rel=1e-4)
    plain = float(net.compute_loss(pixels, labels, answers))
    assert plain == pytest.approx(-np.log(np.array(answers)[labels > 0]).mean(), rel=1e-4)


def test_sigmoid_is_two_classes() -> None:
    answers = np.array([[0.2], [0.9]], np.float32)
    both = np.exp(np.array(teachers.softened(answers, 1.0)))
    assert both == pytest.approx(np.array([[0.8, 0.2], [0.1, 0.9]]), abs=1e-5)


def test_teacher_gets_the_bytes_of_a_picture(tmp_path: Path) -> None:
    pictures = np.array([-0.5, 0.1, 0.5, 1.7], np.float32).reshape(1, 2, 2, 1)
    seen = []

    def net(pixels: Any, training: bool) -> Any:
        assert not training
        seen.append(np.array(pixels))
        return np.array([[0.5, 0.5]], np.float32)

    teachers.Teachers([net], 1.0).answers(pictures)
    assert seen[0].dtype == np.uint8
    assert seen[0].ravel().tolist() == [0, 26, 128, 255]


def test_teacher_that_does_not_fit_is_refused_before_the_training(
    small: Small, tmp_path: Path
) -> None:
    wrong = teacher(tmp_path, SPEC, 4)
    (tmp_path / "empty").mkdir()
    for name, message in (
        (str(wrong), f"expected nets of 3 classes, got {wrong} of 4"),
        ("absent", "expected a bundle, got absent, which is not there"),
        (str(tmp_path / "empty"), f"{tmp_path / 'empty'}"),
    ):
        errors = io.StringIO()
        command = small.fit(tmp_path / "models", "--set", f'distillation.teachers=["{name}"]')
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            assert main(command) != 0
        assert message in errors.getvalue()
    larger = InputSpec(height=28, width=28, channels=1)
    with pytest.raises(UsageError) as caught:
        teachers.load(Distillation(teachers=(str(wrong),)), larger, LABELS)
    assert str(caught.value) == (
        f"distillation.teachers: expected nets of pictures of 28 x 28 x 1, got {wrong} of "
        "12 x 16 x 1"
    )


def test_bundle_teaches_and_one_of_other_classes_does_not(small: Small, tmp_path: Path) -> None:
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet:
        assert main(small.fit(tmp_path / "models", "--name", "teacher")) == 0
    folder = tmp_path / "models" / "teacher"
    more = ["--name", "student", "--set", f'distillation.teachers=["{folder}"]']
    with quiet:
        assert main(small.fit(tmp_path / "models", *more)) == 0
    stated = bundle.read_manifest(tmp_path / "models" / "student").training.recipe_json
    assert f'"teachers":["{folder}"]' in stated
    with pytest.raises(UsageError, match=r"expected the classes x, y, z, got .* of "):
        teachers.load(Distillation(teachers=(str(folder),)), SPEC, ("x", "y", "z"))


def test_another_teacher_is_another_training_wherever_it_lies(tmp_path: Path) -> None:
    first, second = teacher(tmp_path, SPEC, 3), teacher(tmp_path, SPEC, 3, seed=6)

    def key(path: Path) -> run_key.RunKey:
        recipe = PLAIN.override({"distillation.teachers": [str(path)]})
        return run_key.make_run_key(recipe, "0" * 64)

    moved = first.with_name("moved.keras")
    moved.write_bytes(first.read_bytes())
    assert key(moved) == key(first)
    assert run_key.differences(key(first), key(second)).startswith("distillation was ")

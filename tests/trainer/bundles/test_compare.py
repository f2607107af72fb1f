"""Which of two bundles is better: the figures against other sources, and the command."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from convserve_trainer.bundles import bundle, manifests
from convserve_trainer.bundles.compare import (
    BundleComparison,
    Pairs,
    SeveralComparisons,
    paired,
)
from convserve_trainer.evaluation.score import Score
from convserve_trainer.main import main
from tests.trainer.bundles.pixel_digits import digits, pixel_bundle
from tests.trainer.conftest import Published


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        # R: binom.test(10, 30)$p.value, and so on.
        (10, 20, 0.09873715),
        (20, 10, 0.09873715),
        (2, 15, 0.002349854),
        (0, 5, 0.0625),
        (7, 7, 1.0),
        (0, 0, 1.0),
    ],
)
def test_p_is_that_of_the_exact_binomial_test(only_a: int, only_b: int, p: float) -> None:
    assert Pairs(900, only_a, only_b, 70).p == pytest.approx(p, rel=1e-6)


def test_p_of_thousands_of_pictures_is_no_overflow() -> None:
    assert Pairs(0, 30_000, 30_000, 0).p == 1.0
    assert 0 < Pairs(0, 29_500, 30_500, 0).p < 1e-4


def test_p_is_how_often_equals_differ_so_much() -> None:
    """Coins thrown for the pictures that tell the two apart."""
    draws = np.random.default_rng(1).binomial(40, 0.5, 200_000)
    assert Pairs(0, 14, 26, 0).p == pytest.approx((np.abs(draws - 20) >= 6).mean(), abs=0.005)


def test_interval_holds_the_true_difference_about_95_times_in_100() -> None:
    random = np.random.default_rng(2)
    shares = (0.85, 0.04, 0.07, 0.04)
    groups = random.multinomial(400, shares, 4_000)
    held = [low <= 0.03 <= high for low, high in (Pairs(*map(int, g)).interval for g in groups)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_interval_stays_within_what_accuracies_can_be() -> None:
    assert Pairs(0, 0, 3, 0).interval[1] == 1.0
    assert Pairs(0, 3, 0, 0).interval[0] == -1.0
    low, high = Pairs(1, 0, 0, 0).interval
    assert low < 0 < high


def test_pictures_are_counted_by_who_is_right() -> None:
    a = np.array([True, True, True, False, False, True])
    b = np.array([True, False, False, True, False, True])
    pairs = paired(a, b)
    assert (pairs.both, pairs.only_a, pairs.only_b, pairs.neither) == (2, 2, 1, 1)
    assert pairs.difference == pytest.approx(-1 / 6)


@pytest.fixture
def worse(published: Published, tmp_path: Path) -> Path:
    """The published net, which takes a liking to one digit."""
    model, manifest = bundle.read(published.bundle)
    bias = next(t for t in model.graph.initializer if list(t.dims) == [10])
    values = numpy_helper.to_array(bias).copy()
    values[3] += 2.0
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path


def test_compare_says_which_is_better_and_how_sure(
    published: Published, worse: Path, mnist_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", str(published.bundle), str(worse), "--data", str(mnist_folder)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["a"]["bundle"] == str(published.bundle)
    assert found["b"]["bundle"] == str(worse / "model.onnx")
    assert found["both"] + found["only_a"] + found["only_b"] + found["neither"] == 10_000
    assert found["both"] + found["only_a"] == found["a"]["correct"]
    assert found["both"] + found["only_b"] == found["b"]["correct"]
    assert found["difference"] == pytest.approx(found["b"]["accuracy"] - found["a"]["accuracy"])
    low, high = found["interval"]
    assert low < found["difference"] < high < 0
    assert found["p"] < 0.05
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "A is better, and hardly by luck" in output
    assert f"A alone {found['only_a']:,}, B alone {found['only_b']:,}" in output


def test_bundle_beside_itself_is_as_good(
    published: Published, mnist_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(published.models / "mnist")
    assert main(["compare", model, model, "--data", str(mnist_folder)]) == 0
    output = capsys.readouterr().out
    assert "A alone 0, B alone 0" in output
    assert "p = 1; no evidence that one is better" in output


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("labels", "in the same order, got 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 9, 8, 7"),
        ("kind", "expected the same of A and B, got IMAGE_KIND_DIGITS and IMAGE_KIND_PHOTO"),
    ],
)
def test_bundles_of_different_questions_are_refused(
    published: Published,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    field: str,
    message: str,
) -> None:
    model, manifest = bundle.read(published.bundle)
    if field == "labels":
        manifest.labels[:] = list(reversed(manifest.labels))
    else:
        manifest.input.kind = 2  # type: ignore[assignment]
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    onnx.save(model, tmp_path / "model.onnx")
    assert main(["compare", str(published.bundle), str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_p_of_several_data_sets_is_holms() -> None:
    """R: p.adjust(c(0.0625, 0.002349854, 1), "holm")."""
    files, scores = (Path("a"), Path("b")), (Score(1, 2, 0.5), Score(1, 2, 0.5))
    found = [
        BundleComparison(files, scores, Pairs(9, *apart, 1)) for apart in ((0, 5), (2, 15), (7, 7))
    ]
    several = SeveralComparisons(["x", "y", "z"], found)
    assert several.adjusted == pytest.approx([0.125, 0.007049562, 1.0], rel=1e-6)
    *_, x, y, z = str(several).splitlines()
    assert x.endswith("no evidence")
    assert y.endswith("  B")
    assert z.endswith("+0.00%  -29.20% to +29.20%        1  no evidence")
    assert [each["p_holm"] for each in several.as_dict()["data_sets"]] == several.adjusted  # type: ignore[attr-defined]


def test_compare_on_two_data_sets_has_a_row_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(pixel_bundle(tmp_path / "models"))
    folders = [digits(tmp_path / name, wrong) for name, wrong in (("first", 0), ("second", 4))]
    command = ["compare", model, model, *(word for f in folders for word in ("--data", str(f)))]
    assert main(command) == 0
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:4] == [str(folders[0]), "40", "100.00%", "100.00%"]
    assert second.split()[:4] == [str(folders[1]), "40", "90.00%", "90.00%"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["data_sets"]
    assert [each["data"] for each in found] == list(map(str, folders))
    assert [each["neither"] for each in found] == [0, 4]
    assert found[1]["a"]["correct"] == 36


def test_compare_of_what_is_no_bundle_is_one_line(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_text("no model")
    assert main(["compare", str(published.bundle), str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("model.onnx: not an ONNX file\n")


def test_p_of_one_picture_is_one() -> None:
    assert math.isclose(Pairs(0, 1, 0, 0).p, 1.0)

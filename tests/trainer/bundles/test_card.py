"""The model card of a bundle: what it says, and that it is the YAML and Markdown it should be."""

import json
from pathlib import Path
from typing import Any

import pytest

from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import bundle, card_text
from convserve_trainer.main import main
from tests.bundles import manifest
from tests.trainer.bundles.pixel_digits import digits, pixel_bundle


def stated() -> Manifest:
    made = manifest("lit")
    made.labels[0] = "zero|*0*"
    made.metrics.update({"accuracy": 0.9, "correct": 36, "total": 40, "loss": 0.25})
    made.parameters = 7_840
    made.training.recipe, made.training.seed, made.training.epochs = "mine", 3, 1
    made.training.dataset_sha256 = "d" * 64
    card = {"licence": "cc-by-4.0", "limitations": "# no\n- bold", "of_the_future": 1}
    net = [{"layer": "flatten"}]
    settings = {"net": net, "learning_rate": 0.5, "limit": None, "card": card}
    made.training.recipe_json = json.dumps(settings)
    return made


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of a version, with the figures that evaluate finds beside it."""
    folder = pixel_bundle(tmp_path / "models", stated())
    data = digits(tmp_path / "digits", wrong=4)
    labels = ",".join(bundle.read_manifest(folder).labels)
    command = ["evaluate", str(folder), "--data", str(data), "--labels", labels, "--json"]
    assert main(command) == 0
    (folder / "evaluation.json").write_text(capsys.readouterr().out)
    return folder


def _card(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["card", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_card_states_what_manifest_recipe_and_evaluation_have(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = _card(capsys, folder)
    head, front, text = card.split("---\n", 2)
    assert head == ""
    assert front.startswith(
        'license: "cc-by-4.0"\nlibrary_name: "onnx"\npipeline_tag: "image-classification"\n'
    )
    assert 'metrics:\n    - type: "accuracy"\n      value: 0.9\n' in front
    assert '    - type: "f1"\n' in front
    for phrase in (
        "# lit\n",
        "7,840 parameters",
        "10 classes a picture is of: zero|\\*0\\*, 1, 2",
        "### Direct use\n\nNot stated.\n",
        "\\# no\n- bold\n",
        "worst at: zero|\\*0\\*, with 0.00% of the held-out pictures right",
        "pixels = np.zeros((1, 28, 28, 1), np.uint8)",
        "Recipe `mine`, seed 3, 1 epoch.",
        '| net | `["flatten"]` |\n| learning_rate | `0.5` |\n',
        "36 of 40 held-out pictures are right, 90.00% (95 % interval 76.95% to 96.04%, Wilson)",
        "| 1 | 4 | 0.5000 | 1.0000 | 0.6667 | 0.9444 |",
        "| zero\\|\\*0\\* | 4 | – | 0.0000 |",
        "| operations a picture | 15,680 |",
    ):
        assert phrase in text, phrase
    assert "limit |" not in text
    assert str(folder) not in card, "a path is nobody's business"


def test_fields_given_replace_those_of_the_recipe_in_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "README.md"
    command = [folder, "--licence", "other", "--licence-name", "mine", "--licence-link", "LICENSE"]
    assert _card(capsys, *command, "--intended-use", "To <b>read</b>.", "--out", out) == ""
    card = out.read_text()
    assert 'license: "other"\nlicense_name: "mine"\nlicense_link: "LICENSE"\n' in card
    assert "To &lt;b>read&lt;/b>.\n" in card
    assert "\\# no\n" in card, "limitations are still the recipe's"


def test_old_bundle_without_recipe_and_evaluation_has_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = _card(capsys, pixel_bundle(tmp_path))
    assert "license" not in card
    assert "Data: not stated." in card
    assert "## Evaluation\n\n\n## Technical" in card


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--licence", "mti"], 2, "--licence: expected an identifier of Hugging Face's, or other"),
        (["--data-set", "a\nb"], 2, "--data-set: expected one line, got several"),
        (["--out", "none/README.md"], 2, "--out: expected a file in a folder that exists, got"),
    ],
)
def test_what_no_card_can_have_is_one_line(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["card", str(pixel_bundle(tmp_path)), *arguments]) == status
    error = capsys.readouterr().err
    assert error.startswith(f"convserve-train: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged figures: "),
        ("[]", "damaged figures: "),
        ('{"correct": 1, "total": 2, "classes": [{}], "macro": {}}', "damaged figures: "),
        (None, "expected the figures of this net, 36 of 40 right, got those of another one: 35"),
    ],
)
def test_figures_that_are_damaged_or_of_another_net_are_refused(
    content: str | None, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "evaluation.json"
    file.write_text(content or json.dumps(json.loads(file.read_text()) | {"correct": 35}))
    assert main(["card", str(folder)]) == 1
    assert f"evaluation.json: {message}" in capsys.readouterr().err


def test_damaged_card_in_a_manifest_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, recipe in enumerate(("[1]", '{"card": 5}', '{"card": {"licence": "mti"}}')):
        made = stated()
        made.training.recipe_json = recipe
        assert main(["card", str(pixel_bundle(tmp_path / str(number), made))]) == 1
        assert "model.onnx: damaged recipe: " in capsys.readouterr().err


def test_front_matter_is_yaml_of_nested_lists_and_mappings() -> None:
    values: dict[str, Any] = {"a": 'x: "y"', "b": [1, {"c": [2.5], "d": {"e": None}}], "f": []}
    assert card_text.front_matter(values) == (
        '---\na: "x: \\"y\\""\nb:\n- 1\n- c:\n  - 2.5\n  d:\n    e: null\nf: []\n---\n\n'
    )


def test_no_line_of_text_is_wider_than_a_phone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be broken, such as a digest, is in a table or in code, which scroll."""
    assert main(["card", str(folder)]) == 0
    _, _, body = capsys.readouterr().out.split("---\n", 2)
    text = [line for line in "".join(body.split("```")[::2]).splitlines() if line[:1] != "|"]
    assert max(len(word) for line in text for word in line.split()) <= 32
    assert "| channels |" not in body, "a setting of photographs"

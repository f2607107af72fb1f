"""The model card of a bundle, as Hugging Face has it: README.md with YAML at its beginning.

Source: https://huggingface.co/docs/hub/model-cards.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from convserve_bundle.errors import BundleError
from convserve_bundle.manifest import is_softmax
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, Manifest
from convserve_trainer.bundles import bundle, card_text
from convserve_trainer.bundles.card_text import Described
from convserve_trainer.errors import UsageError
from convserve_trainer.evaluation import classes, judgement
from convserve_trainer.recipes.card import Card

#: Settings of a recipe that say what the card says elsewhere.
_NOT_SETTINGS = ("card", "name", "task", "about", "min_accuracy")


def make_card(file: Path, changes: Mapping[str, str]) -> str:
    """Returns the content of README.md.

    Args:
        file: model.onnx; `evaluation.json` beside it is used if it is there.
        changes: fields of `Card` that replace those of the recipe.

    Raises:
        BundleError: it is not a bundle, or a damaged one.
        UsageError: the changes do not make a card.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}") from error
    model, manifest = bundle.loaded(content, str(file))
    recipe = _recipe(file, manifest)
    card = msgspec.structs.replace(_stated(file, recipe), **changes)
    try:
        card.check("--")
    except ValueError as error:
        raise UsageError(str(error).replace("_", "-")) from error
    settings = {name: value for name, value in recipe.items() if name not in _NOT_SETTINGS}
    if settings.get("channels") != manifest.input.channels:
        settings.pop("channels", None)  # of photographs; the data of other tasks have their own
    judged = _judged(file, manifest)
    described = Described(content, model, manifest, settings, card, judged)
    return card_text.front_matter(_metadata(described)) + card_text.body(described)


def _recipe(file: Path, manifest: Manifest) -> dict[str, Any]:
    """Returns the settings of a training by name; none where the manifest has none."""
    text = manifest.training.recipe_json
    try:
        return dict(json.loads(text)) if text else {}
    except (ValueError, TypeError) as error:
        raise BundleError(f"{file}: damaged recipe: {error}") from error


def _stated(file: Path, recipe: Mapping[str, Any]) -> Card:
    """Returns what the recipe says for the card; a later version may have written more fields."""
    try:
        fields = dict(recipe.get("card", {}))
        known = {name: fields[name] for name in Card.__struct_fields__ if name in fields}
        card = msgspec.convert(known, Card)
        card.check()
    except (ValueError, TypeError) as error:
        raise BundleError(f"{file}: damaged recipe: {error}") from error
    return card


def _judged(file: Path, manifest: Manifest) -> dict[str, Any]:
    """Returns the figures of `evaluation.json`; none where there is no such file.

    Raises:
        BundleError: they are damaged, or of another net.
    """
    path = file.with_name(judgement.FILE)
    try:
        found = json.loads(path.read_bytes())
        counts = found["correct"], found["total"]
        labels = [each["label"] for each in found["classes"]]
        for each in (found["macro"], *found["classes"]):
            for name in classes.FIGURES:
                float(each[name] or 0)
        if not is_softmax(manifest):
            for each in found["classes"]:
                float(each["average_precision"] or 0)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{path}: damaged figures: {error!r}") from error
    expected = manifest.metrics["correct"], manifest.metrics["total"]
    if counts != expected or labels != list(manifest.labels):
        raise BundleError(
            f"{path}: expected the figures of this net, {expected[0]:.0f} of {expected[1]:.0f} "
            f"right, got those of another one: {counts[0]} of {counts[1]}"
        )
    return dict(found)


def _metadata(described: Described) -> dict[str, Any]:
    """Returns what the front matter says.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
    """
    card, manifest = described.card, described.manifest
    licence = {
        "license": card.licence,
        "license_name": card.licence_name,
        "license_link": card.licence_link,
    }
    found: dict[str, Any] = {name: text for name, text in licence.items() if text}
    found["library_name"] = "onnx"
    found["pipeline_tag"] = "image-classification"
    found["tags"] = ["convserve", "onnx", "image-classification"]
    if not is_softmax(manifest):
        found["tags"].append("multi-label")
    metrics = {"accuracy": manifest.metrics.get("accuracy")}
    if not is_softmax(manifest):
        # Of several labels it says next to nothing.
        metrics = {name: manifest.metrics.get(name) for name in ("map", "f1_micro")}
    metrics |= {name: described.judged.get("macro", {}).get(name) for name in classes.FIGURES}
    values = [
        {
            "type": name,
            "value": value,
            "name": f"{name} (macro)" if name in classes.FIGURES else name,
        }
        for name, value in metrics.items()
        if value is not None
    ]
    if not values:
        return found
    data = card.data_set or ("mnist" if manifest.input.kind == IMAGE_KIND_DIGITS else manifest.name)
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": data, "name": f"{data}, held-out pictures"},
        "metrics": values,
    }
    found["metrics"] = [each["type"] for each in values]
    found["model-index"] = [{"name": manifest.name, "results": [result]}]
    return found

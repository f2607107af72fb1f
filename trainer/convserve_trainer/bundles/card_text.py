"""The text of a model card: YAML of the front matter, and Markdown."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from convserve_bundle.manifest import is_softmax
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import describe
from convserve_trainer.evaluation import classes, intervals
from convserve_trainer.export import contract, precisions
from convserve_trainer.recipes.card import Card
from convserve_trainer.wording import counted

NOT_STATED = "Not stated."
_SHOWN_VERSIONS = ("convserve", "keras", "tensorflow", "jax", "onnx", "onnxruntime", "python")
_HEADS = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC AUC"}


@dataclass(frozen=True)
class Described:
    """What is known of a bundle.

    Attributes:
        content: of model.onnx.
        model: its graph.
        manifest: of it.
        settings: of its training, by name.
        card: fields that people write.
        judged: what `evaluation.json` has; nothing where there is no such file.
    """

    content: bytes
    model: onnx.ModelProto
    manifest: Manifest
    settings: Mapping[str, Any]
    card: Card
    judged: Mapping[str, Any]


def front_matter(metadata: Mapping[str, Any]) -> str:
    """Returns YAML between its marks.

    Args:
        metadata: mappings, lists, texts and numbers.
    """
    return "\n".join(["---", *_yaml(metadata), "---", "", ""])


def body(described: Described) -> str:
    """Returns the Markdown below the front matter."""
    manifest, card = described.manifest, described.card
    return "\n".join(
        [
            f"# {manifest.name}",
            "",
            *_summary(manifest),
            "",
            "## Uses",
            "",
            "### Direct use",
            "",
            _paragraphs(card.intended_use),
            "",
            "### Out-of-scope use",
            "",
            _paragraphs(card.out_of_scope),
            "",
            "## Bias, risks and limitations",
            "",
            _paragraphs(card.limitations),
            "",
            *_measured_limits(described),
            "",
            "## How to get started",
            "",
            *_started(manifest),
            "",
            "## Training",
            "",
            *_training(described),
            "",
            "## Evaluation",
            "",
            *_evaluation(described),
            "",
            "## Technical specifications",
            "",
            *_technical(described),
            "",
        ]
    )


def _summary(manifest: Manifest) -> Iterator[str]:
    labels = ", ".join(map(_text, manifest.labels[:20]))
    more = f" and {len(manifest.labels) - 20:,} more" if len(manifest.labels) > 20 else ""
    what = (
        f"says which of {len(manifest.labels)} classes a picture is of"
        if is_softmax(manifest)
        else f"says which of {len(manifest.labels)} labels a picture has, any number of them"
    )
    yield (
        f"A convolutional net with {manifest.parameters:,} parameters that {what}: {labels}{more}."
    )


def _measured_limits(described: Described) -> Iterator[str]:
    """Yields what is known of limits without anybody writing it."""
    several = not is_softmax(described.manifest)
    yield (
        "- It knows no other labels, and may answer them for a picture of something else."
        if several
        else "- It answers one of its classes for every picture, also for one of something else."
    )
    found = described.judged
    judged = [each for each in found.get("classes", ()) if each["recall"] is not None]
    if judged:
        worst = min(judged, key=lambda each: float(each["recall"]))
        yield (
            f"- The label that it misses most: {_text(worst['label'])}, which it answers for "
            f"{worst['recall']:.2%} of the held-out pictures that have it."
            if several
            else f"- The class that it is worst at: {_text(worst['label'])}, with "
            f"{worst['recall']:.2%} of the held-out pictures right."
        )
    for each in found.get("slices", ()):
        if each["verdict"] == "worse":
            yield (
                f"- Worse than on all held-out pictures: {each['trait']} {each['low']:.0f} to "
                f"{each['high']:.0f}, {each['accuracy']:.2%} right."
            )


def _started(manifest: Manifest) -> Iterator[str]:
    spec = manifest.input
    shape = f"{spec.height}, {spec.width}, {spec.channels}"
    yield from (
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        f"pixels = np.zeros((1, {shape}), np.uint8)  # 0 to 255, not scaled",
        '[probabilities] = session.run(["probabilities"], {"pixels": pixels})',
        "```",
        "",
        f"Pixels must be made as in the training: `{spec.resize}`. A server of Convserve does so "
        f"from picture files: `convserve-serve --models models`, then `convserve classify "
        f"PICTURE --model {manifest.name}`.",
    )


def _training(described: Described) -> Iterator[str]:
    training, card = described.manifest.training, described.card
    yield f"Data: {_text(card.data_set) or NOT_STATED.lower()}"
    if training.recipe:
        epochs = counted(training.epochs, "epoch")
        yield f"\nRecipe `{training.recipe}`, seed {training.seed}, {epochs}."
    rows = [(name, f"`{json.dumps(value)}`") for name, value in _set(described.settings).items()]
    if rows:
        yield from ("", *_table(("setting", "value"), rows))


def _set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that switch something on; of layers their names alone."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "net":
            found[name] = [each["layer"] for each in value]
        elif isinstance(value, Mapping):
            found[name] = _set(value)
        else:
            found[name] = value
    return {name: value for name, value in found.items() if value and value != "none"}


def _evaluation(described: Described) -> Iterator[str]:
    metrics = described.manifest.metrics
    several = not is_softmax(described.manifest)
    if several:
        yield from _several(described)
    elif "correct" in metrics and "total" in metrics:
        found = intervals.proportion(metrics["correct"], metrics["total"])
        bounds = f" (95 % interval {found[0]:.2%} to {found[1]:.2%}, Wilson)" if found else ""
        yield (
            f"{metrics['correct']:,.0f} of {metrics['total']:,.0f} held-out pictures are right, "
            f"{metrics['accuracy']:.2%}{bounds}, at a loss of {metrics['loss']:.4f}: found by ONNX "
            "Runtime from the published file."
        )
    if "accuracy_mean" in metrics:
        yield (
            f"Of {counted(int(metrics['seeds']), 'seed')}: mean {metrics['accuracy_mean']:.2%}, "
            f"standard deviation {metrics['accuracy_sd']:.2%}."
        )
    if described.judged:
        rows = [
            (_text(each["label"]), f"{each['pictures']:,}", *map(_figure, _figures(each)))
            for each in described.judged["classes"]
        ]
        rows.append(("mean", "", *map(_figure, _figures(described.judged["macro"]))))
        head = ["class", "pictures", *(_HEADS[name] for name in classes.FIGURES)]
        if several:
            head = ["label", *head[1:], "average precision", "threshold"]
            precisions_ = [each["average_precision"] for each in described.judged["classes"]]
            thresholds = [f"{each:.3f}" for each in described.manifest.thresholds]
            more = zip([*precisions_, metrics["map"]], [*thresholds, ""], strict=True)
            rows = [
                (*row, _figure(precision), threshold)
                for row, (precision, threshold) in zip(rows, more, strict=True)
            ]
        yield from ("", *_table(head, rows))


def _several(described: Described) -> Iterator[str]:
    """Yields the figures of all pictures, where they have several labels."""
    metrics, found = described.manifest.metrics, described.judged.get("map_interval")
    bounds = f" (95 % interval {found[0]:.2%} to {found[1]:.2%}, bootstrap)" if found else ""
    yield (
        f"Mean average precision (mAP) on {metrics['total']:,.0f} held-out pictures: "
        f"{metrics['map']:.2%}{bounds}. F1 of all decisions together {metrics['f1_micro']:.2%}, "
        f"mean over the labels {metrics['f1_macro']:.2%}. All labels are right, and no other, of "
        f"{metrics['correct']:,.0f} pictures, {metrics['accuracy']:.2%}. The loss is "
        f"{metrics['loss']:.4f}. Found by ONNX Runtime from the published file. A picture has "
        "each label whose probability reaches its threshold, which was chosen by F1 on pictures "
        "that are neither trained on nor held out."
    )


def _technical(described: Described) -> Iterator[str]:
    manifest, model = described.manifest, described.model
    versions = manifest.training.versions
    made = ", ".join(f"{name} {versions[name]}" for name in _SHOWN_VERSIONS if name in versions)
    day = f"{manifest.created.ToDatetime():%Y-%m-%d}" if manifest.HasField("created") else ""
    rows = [
        *(("input", f"`{contract.describe(value)}`") for value in model.graph.input),
        *(("output", f"`{contract.describe(value)}`") for value in model.graph.output),
        *(() if is_softmax(manifest) else [("output row", "a sigmoid for each label")]),
        ("pixels", f"`{manifest.input.resize}`"),
        ("precision", precisions.name(manifest.precision)),
        ("parameters", f"{manifest.parameters:,}"),
        ("operations a picture", f"{describe.count_operations(model):,}"),
        ("model.onnx", f"{len(described.content):,} bytes"),
        ("SHA-256 of model.onnx", f"`{hashlib.sha256(described.content).hexdigest()}`"),
        # In a table, which scrolls where it is narrow; a line would be wider than a phone.
        ("SHA-256 of the data", _code(manifest.training.dataset_sha256)),
        ("made", day or NOT_STATED),
        ("made with", made or NOT_STATED),
    ]
    yield from _table(("fact", "value"), rows)


def _figures(of_class: Mapping[str, Any]) -> list[float | None]:
    return [of_class[name] for name in classes.FIGURES]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        # Within code, too, a bar would end the cell.
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _paragraphs(text: str) -> str:
    """Returns what people wrote; it is Markdown, but no HTML and no heading of this page."""
    lines = [re.sub(r"^\s*(#|=+$|-+$)", r"\\\1", line) for line in text.strip().splitlines()]
    return "\n".join(lines).replace("<", "&lt;") or NOT_STATED


def _text(text: str) -> str:
    """Returns a text in which nothing is Markdown; bars are, in tables, which know that."""
    return re.sub(r"([\\`*_{}\[\]<>#])", r"\\\1", text)


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Yields the lines of a mapping or a list; JSON's texts and numbers are YAML's, too."""
    entries = value.items() if isinstance(value, Mapping) else (("-", each) for each in value)
    for key, each in entries:
        name = f"{indent}-" if key == "-" else f"{indent}{key}:"
        if not isinstance(each, Mapping | list) or not each:
            yield f"{name} {json.dumps(each, ensure_ascii=False)}"
        elif key == "-":
            first, *others = _yaml(each, indent + "  ")
            yield f"{name} {first.lstrip()}"
            yield from others
        else:
            yield name
            yield from _yaml(each, indent + ("" if isinstance(each, list) else "  "))


def _code(text: str) -> str:
    return f"`{text}`" if text else NOT_STATED

"""The report of a training: a page beside its bundle, in which nothing is typed in by hand."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convserve_bundle.contract import MODEL_FILE
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer import seeds
from convserve_trainer.bundles import bundle, evaluate, operations
from convserve_trainer.data.pictures import Data
from convserve_trainer.export import contract, precisions
from convserve_trainer.nets import keras_backend
from convserve_trainer.pages.page import About, page
from convserve_trainer.pages.section import Listing, Part, Section, Table
from convserve_trainer.recipes import recipe_text
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.report import figures, machine
from convserve_trainer.runs.history import History
from convserve_trainer.wording import counted

FILE = "report.html"


@dataclass(frozen=True)
class Asked:
    """What the user asked for.

    Attributes:
        command: words of the command line, as they were typed.
        written: the recipe without overrides.
    """

    command: Sequence[str]
    written: Recipe


@dataclass(frozen=True)
class Came:
    """What came of it.

    Attributes:
        content: of model.onnx.
        recipe: with all overrides.
        data: that it was trained and evaluated on.
        history: of its training.
        results: of all seeds, its own first.
        seconds: from the start of the command to now.
    """

    content: bytes
    recipe: Recipe
    data: Data
    history: History
    results: Sequence[seeds.Result]
    seconds: float


def of(came: Came, asked: Asked | None) -> Callable[[int], bytes]:
    """Returns what makes report.html of a version: HTML that loads nothing from anywhere.

    The version is known only when the bundle is published; all else is found here.

    Args:
        came: what came of a training.
        asked: for what; None where no command asked.

    Raises:
        DataError: too many held-out pictures cannot be read any more.
    """
    _, said = bundle.loaded(came.content, MODEL_FILE)
    sections = [
        _held_out(came, said, asked),
        _training(came),
        Section("recipe", "Recipe", _recipe(came, asked)),
        Section("data", "Data", _data(came.data)),
        Section("net", "Net", [_net(came, said)]),
    ]
    right = said.metrics["accuracy"]
    head = (
        f"{right:.2%} of {int(said.metrics['total']):,} held-out {came.data.what} right; "
        f"recipe {came.recipe.name}, seed {came.recipe.seed}."
    )
    facts = _facts(came, said, asked)

    def numbered(version: int) -> bytes:
        about = About(
            head, [("version", f"{version} of {said.name}"), *facts], _title(said, version)
        )
        return page(sections, about).encode()

    return numbered


def _title(said: Manifest, version: int) -> str:
    return f"{said.name}, version {version}"


def _held_out(came: Came, said: Manifest, asked: Asked | None) -> Section:
    probabilities, labels = evaluate.answers_of(came.content, came.data.held_out)
    names = list(came.data.labels)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    metrics, training = said.metrics, said.training
    parts: list[Part] = [
        f"{int(metrics['correct']):,} of {int(metrics['total']):,} are right, "
        f"{metrics['accuracy']:.2%}, at a loss of {metrics['loss']:.4f}: found by ONNX Runtime "
        "from the published file.",
        f"{_chance(counts)} {_floor(came, metrics['accuracy'], asked)}",
        f"Keras has {int(metrics['keras_correct']):,} right. The largest difference between a "
        f"probability of the two is {training.parity_max_abs:.1e}; in "
        f"{precisions.name(said.precision)} up to {training.parity_bound:.0e} is taken.",
        figures.confusion(counts, names),
        _classes(counts, names),
    ]
    return Section("held-out", "Held-out pictures", parts)


def _chance(counts: npt.NDArray[np.int64]) -> str:
    """Returns how many would be right without looking."""
    classes, kinds = len(counts), counts.sum(axis=1)
    return (
        f"Guessing would have {1 / classes:.2%} right, one of {classes}; the commonest class for "
        f"every picture {kinds.max() / kinds.sum():.2%}."
    )


def _floor(came: Came, accuracy: float, asked: Asked | None) -> str:
    """Returns whether the accuracy floor was met, or would have been."""
    floor = came.recipe.min_accuracy
    if floor:
        return f"The accuracy floor of {floor:.2%} is met: what misses it is not published."
    written = 0.0 if asked is None else asked.written.min_accuracy
    if not written:
        return "There is no accuracy floor."
    met = "meets it" if accuracy >= written else "misses it"
    return (
        f"The recipe as it is written has an accuracy floor of {written:.2%}. This net {met}, "
        "which was not asked of it, because the data or other settings are not the recipe's."
    )


def _classes(counts: npt.NDArray[np.int64], names: Sequence[str]) -> Table:
    rows = []
    for number, name in enumerate(names):
        total, right = int(counts[number].sum()), int(counts[number, number])
        wrong = counts[number].copy()
        wrong[number] = 0
        most = int(wrong.argmax())
        taken = f"{names[most]} ({wrong[most]:,})" if wrong[most] else "none"
        share = f"{right / total:.2%}" if total else "none there"
        rows.append((name, f"{total:,}", f"{right:,}", share, taken))
    head = ("class", "held out", "right", "accuracy", "mostly taken for")
    return Table(head, rows, "Accuracy of each class")


def _training(came: Came) -> Section:
    epochs = came.history.epochs
    last, waited = epochs[-1], came.history.input_share
    spent = sum(epoch.seconds for epoch in epochs)
    parts: list[Part] = [
        f"{len(epochs)} of {counted(came.recipe.epochs, 'epoch')} in {spent:.1f} s; {waited:.1%} "
        "of the time of the steps went into waiting for pictures. In the last epoch the loss on "
        f"the pictures that are trained on was {last.loss:.4f}, the accuracy {last.accuracy:.2%}.",
        figures.history(came.history),
    ]
    if len(came.results) > 1:
        parts += [
            f"{len(came.results)} seeds were trained: {seeds.spread(came.results)}. The net of the "
            "first is published, whatever the others are like.",
            Table(
                ("seed", "accuracy", "right", "loss", "epochs", "seconds"),
                [
                    (
                        str(each.seed),
                        f"{each.accuracy:.4f}",
                        f"{each.correct:,}",
                        f"{each.loss:.4f}",
                        str(each.epochs),
                        f"{each.seconds:.1f}",
                    )
                    for each in came.results
                ],
                "Held-out pictures, each seed",
            ),
        ]
    return Section("training", "Training", parts)


def _recipe(came: Came, asked: Asked | None) -> list[Part]:
    written = came.recipe if asked is None else asked.written.for_classes(len(came.data.labels))
    text = recipe_text.text(came.recipe, written)
    caption = f"Recipe {came.recipe.name} with all that was overridden; the rest is default"
    return [Listing(text, caption)]


def _data(data: Data) -> list[Part]:
    parts = {
        "trained on": data.train,
        "validation": data.validation,
        "calibration": data.unseen,
        "held out": data.held_out,
    }
    there = {name: pictures for name, pictures in parts.items() if pictures is not None}
    counts = [np.bincount(each.labels, minlength=len(data.labels)) for each in there.values()]
    rows = [
        (name, *(f"{count[number]:,}" for count in counts))
        for number, name in enumerate(data.labels)
    ]
    rows.append(("all", *(f"{count.sum():,}" for count in counts)))
    spec = data.spec
    return [
        f"{data.what[0].upper()}{data.what[1:]}, [height, width, channels] = [{spec.height}, "
        f"{spec.width}, {spec.channels}], in {len(data.labels)} classes. SHA-256 of all: "
        f"`{data.sha256}`.",
        Table(("class", *there), rows, "Pictures of each class"),
    ]


def _net(came: Came, said: Manifest) -> Table:
    model, _ = bundle.loaded(came.content, MODEL_FILE)
    rows = [
        ("parameters", f"{said.parameters:,}"),
        ("operations a picture", f"{operations.count(model):,}"),
        ("precision", precisions.name(said.precision)),
        ("model.onnx, bytes", f"{len(came.content):,}"),
        *(("input", contract.describe(value)) for value in model.graph.input),
        *(("output", contract.describe(value)) for value in model.graph.output),
        ("weights after epoch", f"{said.training.epochs}"),
    ]
    caption = "What is published; a multiplication and its addition are two operations"
    return Table(("fact", "value"), rows, caption)


def _facts(came: Came, said: Manifest, asked: Asked | None) -> list[tuple[str, str]]:
    training = said.training
    versions = ", ".join(f"{name} {training.versions[name]}" for name in sorted(training.versions))
    facts = [
        ("machine", machine.described()),
        ("backend", keras_backend.described()),
        ("versions", versions),
        ("made", f"{said.created.ToDatetime():%Y-%m-%d %H:%M} UTC, in {came.seconds:.0f} s"),
    ]
    if training.git_commit:
        facts.insert(3, ("commit", training.git_commit))
    return facts if asked is None else [("command", shlex.join(asked.command)), *facts]

"""The report of a training: a page beside its bundle, in which nothing is typed in by hand."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from convserve_bundle.contract import MODEL_FILE
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer import seeds
from convserve_trainer.bundles import bundle, describe
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.evaluation.judged import AnyJudged
from convserve_trainer.export import contract, precisions
from convserve_trainer.html.page import About, page
from convserve_trainer.html.section import Listing, Part, Section, Table
from convserve_trainer.nets import keras_backend
from convserve_trainer.recipes import recipe_text
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.report import figures, judged, machine
from convserve_trainer.runs.history import History
from convserve_trainer.wording import counted

FILE = "report.html"


@dataclass(frozen=True)
class Invocation:
    """What the user asked for.

    Attributes:
        command: words of the command line, as they were typed.
        written: the recipe without overrides.
    """

    command: Sequence[str]
    written: Recipe


@dataclass(frozen=True)
class TrainingOutcome:
    """What came of it.

    Attributes:
        content: of model.onnx.
        recipe: with all overrides.
        data: that it was trained and evaluated on.
        history: of its training.
        results: of all seeds, its own first.
        seconds: from the start of the command to now.
        judged: how the net that is published does on all held-out pictures.
    """

    content: bytes
    recipe: Recipe
    data: Data
    history: History
    results: Sequence[seeds.Result]
    seconds: float
    judged: AnyJudged


def make_report(outcome: TrainingOutcome, invocation: Invocation | None) -> Callable[[int], bytes]:
    """Returns what makes report.html of a version: HTML that loads nothing from anywhere.

    The version is known only when the bundle is published; all else is found here.

    Args:
        outcome: what came of a training.
        invocation: what the user asked for; None where no command did.
    """
    _, manifest = bundle.loaded(outcome.content, MODEL_FILE)
    sections = [
        _held_out(outcome, manifest, invocation),
        *judged.sections(outcome.judged),
        _training(outcome),
        Section("recipe", "Recipe", _recipe(outcome, invocation)),
        Section("data", "Data", _data(outcome.data)),
        Section("net", "Net", [_net(outcome, manifest)]),
    ]
    head = (
        f"{judged.title(manifest.metrics, outcome.data.what)}; "
        f"recipe {outcome.recipe.name}, seed {outcome.recipe.seed}."
    )
    facts = _facts(outcome, manifest, invocation)

    def numbered(version: int) -> bytes:
        about = About(
            head, [("version", f"{version} of {manifest.name}"), *facts], _title(manifest, version)
        )
        return page(sections, about).encode()

    return numbered


def _title(manifest: Manifest, version: int) -> str:
    return f"{manifest.name}, version {version}"


def _held_out(
    outcome: TrainingOutcome, manifest: Manifest, invocation: Invocation | None
) -> Section:
    judgement = outcome.judged.judgement
    metrics, training = manifest.metrics, manifest.training
    parts: list[Part] = [
        f"{judged.headline(judgement, metrics)}: found by ONNX Runtime from the published file.",
        f"{judged.chance(judgement)} {_floor(outcome, metrics['accuracy'], invocation)}",
        f"Keras has {int(metrics['keras_correct']):,} right. The largest difference between a "
        f"probability of the two is {training.parity_max_abs:.1e}; in "
        f"{precisions.name(manifest.precision)} up to {training.parity_bound:.0e} is allowed.",
        *judged.matrix(judgement),
    ]
    return Section("held-out", "Held-out pictures", parts)


def _floor(outcome: TrainingOutcome, accuracy: float, invocation: Invocation | None) -> str:
    """Returns whether the accuracy floor was met, or would have been."""
    floor = outcome.recipe.min_accuracy
    if floor:
        return f"The accuracy floor of {floor:.2%} is met: what misses it is not published."
    written = 0.0 if invocation is None else invocation.written.min_accuracy
    if not written:
        return "There is no accuracy floor."
    met = "meets it" if accuracy >= written else "misses it"
    return (
        f"The recipe as it is written has an accuracy floor of {written:.2%}. This net {met}, "
        "which was not asked of it, because the data or other settings are not the recipe's."
    )


def _training(outcome: TrainingOutcome) -> Section:
    epochs = outcome.history.epochs
    last, waited = epochs[-1], outcome.history.input_share
    spent = sum(epoch.seconds for epoch in epochs)
    parts: list[Part] = [
        f"{len(epochs)} of {counted(outcome.recipe.epochs, 'epoch')} in {spent:.1f} s; "
        f"{waited:.1%} of the time of the steps went into waiting for pictures. In the last epoch "
        f"the loss on the pictures that are trained on was {last.loss:.4f}, the accuracy "
        f"{last.accuracy:.2%}.",
        figures.history(outcome.history),
    ]
    if len(outcome.results) > 1:
        parts += [
            f"{len(outcome.results)} seeds were trained: {seeds.spread(outcome.results)}. The net "
            "of the first is published, whatever the others are like.",
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
                    for each in outcome.results
                ],
                "Held-out pictures, each seed",
            ),
        ]
    return Section("training", "Training", parts)


def _recipe(outcome: TrainingOutcome, invocation: Invocation | None) -> list[Part]:
    written = (
        outcome.recipe
        if invocation is None
        else invocation.written.for_classes(len(outcome.data.labels), outcome.data.several)
    )
    text = recipe_text.text(outcome.recipe, written)
    caption = f"Recipe {outcome.recipe.name} with all that was overridden; the rest is default"
    return [Listing(text, caption)]


def _data(data: Data) -> list[Part]:
    parts = {
        "trained on": data.train,
        "validation": data.validation,
        "calibration": data.calibration,
        "thresholds": data.thresholds,
        "held out": data.held_out,
    }
    if data.validation or data.calibration:
        del parts["thresholds"]  # they are of those
    there = {name: pictures for name, pictures in parts.items() if pictures is not None}
    counts = [
        each.labels.sum(axis=0)
        if data.several
        else np.bincount(each.labels, minlength=len(data.labels))
        for each in there.values()
    ]
    rows = [
        (name, *(f"{count[number]:,}" for count in counts))
        for number, name in enumerate(data.labels)
    ]
    rows.append(("all", *(f"{len(pictures):,}" for pictures in there.values())))
    spec = data.spec
    return [
        f"{data.what[0].upper()}{data.what[1:]}, [height, width, channels] = [{spec.height}, "
        f"{spec.width}, {spec.channels}], in {len(data.labels)} classes. SHA-256 of all: "
        f"`{data.sha256}`.",
        Table(
            ("label" if data.several else "class", *there),
            rows,
            "Pictures with each label" if data.several else "Pictures of each class",
        ),
    ]


def _net(outcome: TrainingOutcome, manifest: Manifest) -> Table:
    model, _ = bundle.loaded(outcome.content, MODEL_FILE)
    rows = [
        ("parameters", f"{manifest.parameters:,}"),
        ("operations a picture", f"{describe.count_operations(model):,}"),
        ("precision", precisions.name(manifest.precision)),
        ("model.onnx, bytes", f"{len(outcome.content):,}"),
        *(("input", contract.describe(value)) for value in model.graph.input),
        *(("output", contract.describe(value)) for value in model.graph.output),
        ("weights after epoch", f"{manifest.training.epochs}"),
    ]
    caption = "What is published; a multiplication and its addition are two operations"
    return Table(("fact", "value"), rows, caption)


def _facts(
    outcome: TrainingOutcome, manifest: Manifest, invocation: Invocation | None
) -> list[tuple[str, str]]:
    training = manifest.training
    versions = ", ".join(f"{name} {training.versions[name]}" for name in sorted(training.versions))
    facts = [
        ("machine", machine.described()),
        ("backend", keras_backend.described()),
        ("versions", versions),
        ("made", f"{manifest.created.ToDatetime():%Y-%m-%d %H:%M} UTC, in {outcome.seconds:.0f} s"),
    ]
    if training.git_commit:
        facts.insert(3, ("commit", training.git_commit))
    return facts if invocation is None else [("command", shlex.join(invocation.command)), *facts]

"""The page of `convserve-train evaluate --html`: how a bundle does on held-out pictures."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.export import precisions
from convserve_trainer.html.page import About, page
from convserve_trainer.html.section import Part, Section
from convserve_trainer.report import figures, judged
from convserve_trainer.report.judged import Judged


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated, and what came of it.

    Attributes:
        file: model.onnx.
        manifest: of the bundle.
        judged: what came of it.
        command: words of the command line, as they were typed.
    """

    file: Path
    manifest: Manifest
    judged: Judged
    command: Sequence[str]


def make_page(evaluated: Evaluated) -> str:
    """Returns HTML that loads nothing from anywhere."""
    manifest, judgement = evaluated.manifest, evaluated.judged.judgement
    score, interval = judgement.score, judgement.accuracy_interval
    assert interval is not None, "there is a picture or more"
    low, high = interval
    labels = list(manifest.labels)
    parts: list[Part] = [
        f"{score.correct:,} of {score.total:,} are right, {score.accuracy:.2%} (95 % interval "
        f"{low:.2%} to {high:.2%}, by Wilson's method), at a loss of {score.loss:.4f}: found by "
        "ONNX Runtime from the published file.",
        judged.chance(judgement),
        figures.confusion(judgement.confusion, labels),
    ]
    sections = [
        Section("held-out", "Held-out pictures", parts),
        *judged.sections(evaluated.judged),
    ]
    made = manifest.created.ToDatetime()
    facts = [
        ("command", shlex.join(evaluated.command)),
        ("bundle", str(evaluated.file)),
        ("trained", f"{made:%Y-%m-%d %H:%M} UTC, recipe {manifest.training.recipe}"),
        ("precision", precisions.name(manifest.precision)),
        ("evaluated", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("versions", ", ".join(f"{n} {version(n)}" for n in ("convserve", "onnxruntime", "numpy"))),
    ]
    head = f"{score.accuracy:.2%} of {score.total:,} held-out pictures right."
    return page(sections, About(head, facts, f"{manifest.name}, evaluated"))

"""The page of `convserve-train evaluate --html`: how a bundle does on held-out pictures."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.evaluation.judged import AnyJudged
from convserve_trainer.export import precisions
from convserve_trainer.html.page import About, page
from convserve_trainer.html.section import Part, Section
from convserve_trainer.report import judged


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
    judged: AnyJudged
    command: Sequence[str]


def make_page(evaluated: Evaluated) -> str:
    """Returns HTML that loads nothing from anywhere."""
    manifest, judgement = evaluated.manifest, evaluated.judged.judgement
    metrics = judgement.score.as_dict()
    parts: list[Part] = [
        f"{judged.headline(judgement, metrics)}: found by ONNX Runtime from the published file.",
        judged.chance(judgement),
        *judged.matrix(judgement),
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
    head = judged.title(metrics, "pictures")
    return page(sections, About(f"{head}.", facts, f"{manifest.name}, evaluated"))

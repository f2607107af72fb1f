"""What the steps of a training share: see `pipeline`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from convserve_trainer import seeds
from convserve_trainer.bundles.published import PublishTarget
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.evaluation.judged import AnyJudged
from convserve_trainer.evaluation.score import Thresholds
from convserve_trainer.evaluation.traits import Traits
from convserve_trainer.export.conversion import ExportOptions
from convserve_trainer.export.parity import Candidate, Comparison, Reference
from convserve_trainer.host.launcher import Member
from convserve_trainer.nets.origin import Origin
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.report.page import Invocation
from convserve_trainer.runs.history import History
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.run_key import CheckpointPolicy
from convserve_trainer.runs.training_state import Training
from convserve_trainer.tracking.tracking import Factory, Tracking

if TYPE_CHECKING:
    import keras

    from convserve_trainer.nets.process_group import Group


class TrainedBundle(NamedTuple):
    """A bundle that is ready to be published.

    Attributes:
        content: of model.onnx, evaluated and checked against Keras.
        extra_files: content of other files of the bundle, by name.
        history: of its training.
        judged: how the net that is published does on all held-out pictures.
        result: of its seed.
    """

    content: bytes
    extra_files: dict[str, bytes]
    history: History
    judged: AnyJudged
    result: seeds.Result


@dataclass
class Context:
    """A training on its way through the steps.

    Attributes:
        recipe: with all overrides; from `load` on for the classes of the data.
        read_data: returns the data; called once, when all else is known to be right.
        target: where the net is published.
        out: takes what a user wants to see.
        options: the precision, and how it is made.
        policy: where checkpoints go, and whether to go on from one.
        unless_published: do nothing where the newest version, or the target's, was already made
            so; only the data are loaded.
        trackers: what each seed's training is reported to, with their names.
        seed_count: how many are trained, the recipe's seed and the next ones.
        member: which of several processes this is that train the net; None for one alone.
        invocation: what the report says that the user asked for.
        origins: of the weights that the net begins with.
        started: when, by `time.monotonic`.
        earlier: folder of the version that `unless_published` is about; None if there is none.
        data: from `load` on.
        run: where this seed's training is kept; once the runs are open.
        tracking: reports this seed's training; likewise.
        group: the processes, once they are connected; None for one alone.
        resume: whether this seed goes on from a checkpoint.
        training: from `build` on; after `fit` with the weights of its best epoch.
        model: from `evaluate` on: the net without what only training needs.
        columns: the same with a probability for each class.
        temperature: that `evaluate` folded into the model; 0 for none.
        thresholds: that `evaluate` chose, where pictures have several labels; None otherwise.
        reference: what Keras says of all held-out pictures; from `evaluate` on.
        traits: of all held-out pictures; likewise.
        candidates: the net as ONNX as it will be published, then what it is compared with; from
            `export` on.
        comparison: what `check` found.
        bundle: of this seed; from `pack` on.
    """

    recipe: Recipe
    read_data: Callable[[], Data]
    target: PublishTarget
    out: TextIO
    options: ExportOptions = ExportOptions()
    policy: CheckpointPolicy = CheckpointPolicy()  # noqa: RUF009 - it is frozen
    unless_published: bool = False
    trackers: Sequence[tuple[str, Factory]] = ()
    seed_count: int = 1
    member: Member | None = None
    invocation: Invocation | None = None
    origins: tuple[Origin, ...] = ()
    started: float = field(default_factory=time.monotonic)
    earlier: Path | None = None
    data: Data = field(init=False)
    run: Run = field(init=False)
    tracking: Tracking = field(init=False)
    group: "Group | None" = None
    resume: bool = False
    training: Training = field(init=False)
    model: "keras.Model" = field(init=False)
    columns: "keras.Model" = field(init=False)
    temperature: float = 0.0
    thresholds: Thresholds | None = None
    reference: Reference = field(init=False)
    traits: Traits = field(init=False)
    candidates: list[Candidate] = field(init=False)
    comparison: Comparison = field(init=False)
    bundle: TrainedBundle = field(init=False)

    def print(self, *lines: object) -> None:
        """Prints lines for the user."""
        print(*lines, sep="\n", file=self.out, flush=True)

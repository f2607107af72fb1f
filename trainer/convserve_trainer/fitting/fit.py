"""Fitting: epoch after epoch, kept on the way, until done, stopped or diverged."""

import math
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.pictures import Batch, Data, Labels, Part, Pictures
from convserve_trainer.errors import CheckpointError, DataError, DivergedError
from convserve_trainer.evaluation import predict, ranking
from convserve_trainer.fitting import averaging, chunks, order, shares, step_parts
from convserve_trainer.fitting.backend_steps import make_steps
from convserve_trainer.fitting.decisions import Decisions
from convserve_trainer.fitting.progress import Progress
from convserve_trainer.fitting.steps import Arrays, Steps, Targets
from convserve_trainer.fitting.targets import Lesson
from convserve_trainer.host import signals
from convserve_trainer.nets import keras_backend, models, teachers
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_key
from convserve_trainer.runs.history import Epoch
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Means, Training, UnderWay
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras

    from convserve_trainer.nets.process_group import Group


def fit(
    training: Training,
    data: Data,
    recipe: Recipe,
    run: Run,
    stream: TextIO,
    group: "Group | None" = None,
) -> None:
    """Trains from the step that the training has reached up to the end of the recipe's last epoch.

    The order of the pictures depends on the seed and the position alone, so that a training that
    was stopped or killed and is resumed ends with the same weights as one that was not.

    Args:
        training: changed in place.
        data: only its held-out part is not trained on.
        recipe: how many epochs, steps and pictures a step, the seed.
        run: where the training is kept; a disk that refuses is a warning, and tried again.
        stream: takes the progress.
        group: of processes that train together, each with a part of every batch; None for one
            alone.

    Raises:
        DataError: too many pictures went away; of several processes, any.
        DivergedError: a loss, or a weight, is not finite.
        LostProcessError: another process has ended.
        Stopped: Ctrl-C or SIGTERM, after the steps under way; a second one kills the process.
    """
    count = recipe.steps or math.ceil(len(data.train) / recipe.batch_size)
    progress = Progress(stream, recipe.epochs, count, recipe.validated)
    weights = _class_weights(data.train, recipe)
    threads = step_parts.suitable(recipe, data.spec, keras_backend.parts())
    nets = teachers.load(recipe.distillation, data.spec, data.labels)
    lesson = None if nets is None else Lesson(nets, recipe.distillation)
    with signals.requested() as request:
        begin = 0
        for end in recipe.stage_ends:
            if training.position.epochs < end:
                if begin:
                    _thaw(training, data, recipe, progress)
                chunker = _chunker(data, run)
                steps = make_steps(training.model, chunker, weights, threads.parts, group, lesson)
                decisions = Decisions(request, run, chunker, group)
                stage = Stage(begin, end)
                _Fitting(
                    training, data, recipe, run, progress, steps, decisions, group, stage
                ).go_on()
            begin = end
    if recipe.averaging:
        training.history.weights = averaging.averaged(training.model, data.train, recipe)


class Stage(NamedTuple):
    """Epochs in which the same layers are trained.

    Attributes:
        begin: epochs that are finished before it.
        end: epochs that are finished after it.
    """

    begin: int
    end: int


@dataclass(frozen=True)
class _Fitting:
    """A training, and all that takes part in it."""

    training: Training
    data: Data
    recipe: Recipe
    run: Run
    progress: Progress
    steps: Steps
    decisions: Decisions
    group: "Group | None"
    stage: Stage

    def go_on(self) -> None:
        """Trains up to the end of the stage."""
        self._log()
        last = self.stage.end == self.recipe.epochs
        for number in range(self.training.position.epochs, self.stage.end):
            patience = self.recipe.patience
            stale = min(self.training.history.stale, number - self.stage.begin)
            if last and patience and stale >= patience:
                self.progress.say(
                    f"no lower validation loss in {counted(patience, 'epoch')}: stopped after "
                    f"epoch {number} of {self.recipe.epochs}"
                )
                break
            self.progress.start(number)
            try:
                self._train()
                epoch = self._finish_epoch()
            except (DataError, DivergedError, signals.Stopped):
                self.progress.abandon()
                raise
            self.progress.finish(epoch)
            if epoch.val_map is not None:
                self.progress.say(f"validation mAP {epoch.val_map:.4f}")
            for note in self.data.notes():
                self.progress.say(note)
            self._keep()
            self._log()
            self.decisions.look()
            self.decisions.obey()

    def _train(self) -> None:
        """Trains to the end of the epoch under way."""
        under_way = self.training.under_way
        epoch, done = self.training.position
        train, recipe = self.data.train, self.recipe
        numbers = order.epoch_order(
            len(train), recipe.batch_size, recipe.steps, recipe.seed, epoch, done
        )
        left = None if recipe.steps is None else recipe.steps - done
        begun = time.perf_counter() - under_way.seconds
        waiting_since = time.perf_counter()
        with closing(_batches(self.data, train, numbers, recipe, left, self.group)) as batches:
            for chunk in chunks.make_chunks(batches, self.steps.chunker):
                under_way.waited_s += time.perf_counter() - waiting_since
                self._step(chunk)
                under_way.seconds = time.perf_counter() - begun
                self._look_up()
                waiting_since = time.perf_counter()

    def _step(self, chunk: list[Batch]) -> None:
        """Trains on these batches, a step each.

        Raises:
            DivergedError: a loss is not finite; the position is that of its step.
        """
        under_way, steps = self.training.under_way, self.steps
        model = self.training.model
        processes = self.group.member.count if self.group else 1
        figures = steps.train([arrays(model, batch, steps.class_weights) for batch in chunk])
        for (_, labels), of_step in zip(chunk, figures, strict=True):
            under_way.steps += 1
            under_way.means.add(of_step, processes * len(labels))
            if not math.isfinite(of_step["loss"]):
                raise self._diverged(f"the loss is {of_step['loss']:g}", of_step["learning_rate"])

    def _look_up(self) -> None:
        """Does what is due between steps."""
        under_way = self.training.under_way
        means = under_way.means.values()
        self.progress.step(under_way.steps, means)
        self.decisions.look()
        if under_way.steps < self.progress.steps:  # the end of an epoch is too near to lose it
            if self.decisions.due and self._keep():
                self.progress.kept(under_way.steps, means)
            self.decisions.obey()

    def _finish_epoch(self) -> Epoch:
        """Validates the epoch under way and adds it to the history."""
        training = self.training
        started = time.perf_counter()
        validated = _validate(training.model, self.data, self.recipe, self.steps, self.group)
        if not math.isfinite(validated.get("loss", 0.0)):
            raise self._diverged(f"the validation loss is {validated['loss']:g}")
        done, mean = training.under_way, None
        if self.data.several and self.recipe.validated and self.group is None:
            mean = _mean_average_precision(training.model, self.data, self.recipe)
        epoch = Epoch(
            epoch=training.position.epochs + 1,
            **done.means.values(),
            val_loss=validated.get("loss"),
            val_accuracy=validated.get("accuracy"),
            seconds=done.seconds + time.perf_counter() - started,
            input_share=done.waited_s / done.seconds,
            learning_rate=_learning_rate(training.model),
            val_map=mean,
        )
        training.history.epochs.append(epoch)
        if self.recipe.validated and training.history.best is epoch:
            training.history.weights = training.model.get_weights()
        training.under_way = UnderWay()
        return epoch

    def _keep(self) -> bool:
        """Returns whether the training is kept; a disk that refuses is a warning.

        Raises:
            DivergedError: its weights are not finite.
        """
        if not all(np.isfinite(values).all() for values in self.training.model.get_weights()):
            raise self._diverged("weights are not finite")
        try:
            self.run.keep(self.training)
        except CheckpointError as error:
            self.progress.say(f"warning: {error}")
            return False
        return True

    def _log(self) -> None:
        try:
            self.run.log(self.training.history)
        except CheckpointError as error:
            self.progress.say(f"warning: {error}")

    def _diverged(self, what: str, rate: float | None = None) -> DivergedError:
        """Returns the error; without a rate, with the optimizer's of now."""
        kept, folder = self.run.kept, self.run.folder
        if kept is None:
            hint = "nothing is kept"
        elif kept.epochs and run_key.may_end_elsewhere(self.recipe):
            hint = (
                f"finished epochs are kept in {folder}: --resume --epochs {kept.epochs} publishes "
                "them"
            )
        else:
            hint = f"{kept} is kept in {folder}"
        rate = _learning_rate(self.training.model) if rate is None else rate
        return DivergedError(
            f"{what} in step {self.training.under_way.steps} of epoch "
            f"{self.training.position.epochs + 1}, at a learning rate of {rate:g}; {hint}; another "
            "--seed or a larger --batch-size may do better"
        )


def _thaw(training: Training, data: Data, recipe: Recipe, progress: Progress) -> None:
    """Lets the layers be trained that were not until now; does nothing where all are."""
    body = models.frozen(training.model)
    if not body:  # one that was resumed in this stage
        return
    progress.say(
        f"from epoch {training.position.epochs + 1} on all layers are trained; "
        f"{counted(len(body), 'layer')} at {recipe.body_rate:g} of the learning rate"
    )
    models.thaw(training.model, recipe, len(data.train))


def _chunker(data: Data, run: Run) -> chunks.StepChunker:
    """Returns how many steps are run together at most."""
    # A checkpoint after every step needs to be between steps; pictures that are decoded while they
    # are needed must come one batch at a time, so that decoding goes on beside the training.
    alone = run.seconds == 0 or not data.train.in_memory
    return chunks.StepChunker(1) if alone else chunks.StepChunker()


def _learning_rate(model: "keras.Model") -> float:
    """Returns the step of the optimizer, with the digits that a float32 has."""
    return float(f"{float(model.optimizer.learning_rate):.7g}")


def _batches(
    data: Data,
    pictures: Pictures,
    numbers: Iterable[int],
    recipe: Recipe,
    steps: int | None,
    group: "Group | None",
) -> Generator[Batch, None, None]:
    """Returns batches of pictures of the data; of several processes, the part of this one."""
    size = recipe.batch_size
    if group is None:
        return pictures.batches(numbers, size, steps)
    numbers = shares.own(numbers, size, group.member)
    parts = pictures.batches(numbers, shares.largest(size, group.member), steps)
    return shares.complete(parts, data.notes)


def _validate(
    model: "keras.Model",
    data: Data,
    recipe: Recipe,
    steps: Steps,
    group: "Group | None" = None,
) -> dict[str, float]:
    """Returns the means over the pictures of the validation; nothing without one."""
    if not recipe.validated:
        return {}
    means = Means()
    pictures, count = _validation(data, recipe)
    for batch in _batches(data, pictures, range(count), recipe, None, group):
        [figures] = steps.test([arrays(model, batch)])
        means.add(figures, len(batch[1]))
    if group is not None:
        sums = group.gather([means.loss, means.accuracy, means.pictures])
        loss, accuracy, pictures_of_all = (sum(of_each) for of_each in zip(*sums, strict=True))
        means = Means(loss, accuracy, int(pictures_of_all))
    return means.values()


def _validation(data: Data, recipe: Recipe) -> tuple[Pictures, int]:
    """Returns the pictures of the validation, and how many of them are looked at, the first."""
    pictures = data.validation or data.held_out
    if not recipe.validation_steps:
        return pictures, len(pictures)
    return pictures, min(len(pictures), recipe.validation_steps * recipe.batch_size)


def _mean_average_precision(model: "keras.Model", data: Data, recipe: Recipe) -> float:
    """Returns the mAP on the pictures of the validation, 0 to 1.

    It is not a mean over batches, as the loss is, so the net is asked once more.
    """
    pictures, count = _validation(data, recipe)
    answers = predict.answer(partial(predict.by_keras, model), Part(pictures, np.arange(count)))
    return ranking.mean_average_precision(answers.labels.astype(bool), answers.probabilities)


def _class_weights(pictures: Pictures, recipe: Recipe) -> npt.NDArray[np.float32] | None:
    """Returns float32 [K], what a picture of each class counts; 1 on average over all pictures."""
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(pictures.labels)
    weights: npt.NDArray[np.float64] = len(pictures) / (len(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)


def arrays(
    model: "keras.Model", batch: Batch, class_weights: npt.NDArray[np.float32] | None = None
) -> Arrays:
    """Returns what a step takes: pixels, targets and, with class weights, float32 [N] of pictures.

    Args:
        model: that is trained.
        batch: pixels and labels.
        class_weights: float32 [K], what a picture of each class counts.
    """
    pixels, labels = batch
    targets = _targets(model, labels)
    if class_weights is None:
        return pixels, targets
    return pixels, targets, class_weights[labels]


def _targets(model: "keras.Model", labels: Labels) -> Targets:
    """Returns what the net should say: float32 [N, K], or [N, 1] for a sigmoid."""
    classes = model.output_shape[-1]
    if labels.ndim == 2:
        return labels.astype(np.float32)
    if classes == 1:
        return labels[:, np.newaxis].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]

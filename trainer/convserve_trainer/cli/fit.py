"""The command convserve-train fit."""

import argparse
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_trainer.cli import data_options, precision_options, sign_options
from convserve_trainer.cli.command import (
    Command,
    add_version,
    always,
    models_option,
    open_store,
    print_line,
)
from convserve_trainer.datasets import registry
from convserve_trainer.errors import UsageError
from convserve_trainer.host import launcher
from convserve_trainer.nets import keras_backend
from convserve_trainer.runs.run_key import CHECKPOINT_SECONDS, CheckpointPolicy

if TYPE_CHECKING:
    from convserve_trainer.recipes.recipe import Recipe

MODELS_VARIABLE = "CONVSERVE_MODELS"

#: Why an option has one value only for several processes.
_WHY = {
    "backend": "; TensorFlow's strategy for several workers does not work with Keras 3",
    "seeds": "; each seed can be a training of its own, on another machine",
}

EPILOG = """examples:
  convserve-train fit digits --recipe lecture --models models
  convserve-train fit photos --recipe lecture --data cats_dogs --run runs/1
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add_task(command)
    data_options.add_training(command.add_argument_group("data"))
    _add_training(
        command.add_argument_group(
            "training",
            "Other settings than the recipe's, but for the seed, lift its accuracy floor.",
        )
    )
    _add_keeping(command.add_argument_group("stopping, killing and watching"))
    _add_tracking(command.add_argument_group("trackers"))
    _add_publishing(command.add_argument_group("publishing"))


def run(options: argparse.Namespace) -> None:
    """Trains a net as the options say, evaluates it, exports it and publishes it.

    Raises:
        TrainerError: anything a user can mend.
        Interrupted: Ctrl-C or SIGTERM during training.
        MemoryError: there is not enough.
    """
    # Help is instant, and an error in the options comes at once, because these are imported late.
    from convserve_trainer.recipes import recipe_files
    from convserve_trainer.tracking import choice

    data_options.check(options, registry.find_task(options.task))
    written = recipe_files.find(options.recipe, options.task)
    recipe = written.override(
        dict(options.settings),
        seed=options.seed,
        min_accuracy=options.min_accuracy,
        epochs=options.epochs,
        steps=options.steps,
        batch_size=options.batch_size,
        validation_steps=options.validation_steps,
        limit=options.limit,
        calibrate=options.calibrate or None,
        validation_share=options.validation_share,
        patience=options.patience,
        start_from=options.start_from,
        freeze_epochs=options.freeze_epochs,
        mixed_precision=options.mixed_precision or None,
        **(options.size or {}),
    )
    member = launcher.member(os.environ)
    if member is not None:
        _check_processes(options, recipe, member)
    keras_backend.choose(options.backend)
    policy = CheckpointPolicy(
        options.run_folder,
        options.resume or options.resume_or_start,
        options.checkpoint_seconds,
        options.resume_or_start,
    )
    read_data = data_options.training(options, recipe, print_line)
    export_options = precision_options.read(options)
    signer = sign_options.read(options, "sign-")
    trackers = choice.find(
        options.tracker, options.mlflow, options.mlflow_experiment, options.mlflow_register
    )
    store = open_store(options.models)
    from convserve_trainer import following, pipeline
    from convserve_trainer.bundles.published import PublishTarget
    from convserve_trainer.context import Context
    from convserve_trainer.report.page import Invocation

    name = data_options.model_name(options) if options.name is None else options.name
    context = Context(
        recipe,
        read_data,
        PublishTarget(
            # What is not finished stays on this machine.
            Path("models") if store else options.models,
            name,
            options.version,
            signer,
            store,
        ),
        sys.stdout,
        export_options,
        policy,
        unless_published=options.unless_published,
        trackers=trackers,
        seed_count=options.seeds,
        member=member,
        invocation=Invocation(options.typed, written),
    )
    if member is None or member.number == 0:
        pipeline.train(context)
    else:
        following.follow(context)


def _check_processes(
    options: argparse.Namespace, recipe: "Recipe", member: launcher.Member
) -> None:
    """Refuses what several processes cannot train together.

    Raises:
        UsageError: so.
    """
    for flag, expected, got in (
        ("backend", "jax", options.backend),
        ("seeds", 1, options.seeds),
    ):
        if got != expected:
            raise UsageError(
                f"--{flag}: expected {expected} for a training over {member.count} processes "
                f"({launcher.COUNT}), got {got}{_WHY[flag]}"
            )
    if recipe.freeze_epochs:
        raise UsageError(
            f"freeze_epochs: expected 0 for a training over {member.count} processes "
            f"({launcher.COUNT}), got {recipe.freeze_epochs}"
        )
    if recipe.batch_size % member.count:
        raise UsageError(
            f"batch_size: expected a multiple of {member.count} processes ({launcher.COUNT}), got "
            f"{recipe.batch_size}"
        )
    if recipe.distillation.teachers:  # asked within a step that is one program over all processes
        raise UsageError(
            f"distillation.teachers: expected none for a training over {member.count} processes "
            f"({launcher.COUNT}), got {', '.join(recipe.distillation.teachers)}"
        )


def add_task(command: argparse.ArgumentParser) -> None:
    """Adds the argument that says what is trained."""
    names = [task.name for task in registry.TASKS]
    command.add_argument("task", choices=names, help="what to tell apart")


def add_recipe_options(group: argparse._ArgumentGroup) -> None:
    """Adds the options that say which recipe, and what of it is changed."""
    group.add_argument(
        "--recipe",
        metavar="NAME",
        default="lecture",
        help="settings: a name that convserve-train recipes lists, or a file of your own, "
        "NAME.toml [default: %(default)s]",
    )
    group.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        type=_setting,
        action="append",
        default=[],
        dest="settings",
        help="another value of any field of the recipe: schedule=cosine, augmentation.shift=0.1, "
        "net.0.filters=16; may be given several times",
    )


def add_backend_option(group: argparse._ArgumentGroup) -> None:
    """Adds the option that says what Keras computes with."""
    group.add_argument(
        "--backend",
        choices=keras_backend.BACKENDS,
        default=keras_backend.DEFAULT,
        help="of Keras; jax is for GPUs, on CPUs it is the slower one [default: %(default)s]",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    add_recipe_options(group)
    for flag, metavar, what in (
        ("--epochs", "EPOCHS", "how many, 1 or more"),
        ("--steps", "STEPS", "steps an epoch, 1 or more"),
        ("--batch-size", "IMAGES", "images a step, 1 or more"),
        ("--validation-steps", "STEPS", "photos: at most so many after an epoch, 1 or more"),
        ("--patience", "EPOCHS", "without a lower validation loss that end the training early"),
        ("--seed", "NUMBER", "of weights, shuffling, dropout and augmentation, 0 or more"),
    ):
        group.add_argument(flag, metavar=metavar, type=int, help=f"{what} [default: the recipe's]")
    group.add_argument(
        "--seeds",
        metavar="COUNT",
        type=int,
        default=1,
        help="train so many times, with the seed and the next ones, and say mean and spread of the "
        "accuracy; the first one's net is published and must meet the floor, never the best on the "
        "held-out images, which these then would have chosen, nor the best in validation "
        "[default: 1]",
    )
    group.add_argument(
        "--validation-share",
        metavar="SHARE",
        type=float,
        help="share of the training images that is kept out of the training and chooses the "
        "epoch, 0 to 1 [default: the recipe's]",
    )
    group.add_argument(
        "--mixed-precision",
        action="store_true",
        help="compute in bfloat16; weights, and what is published, stay float32 [default: the "
        "recipe's]",
    )
    group.add_argument(
        "--start-from",
        metavar="PATH",
        help="begin with the weights of another net where layers fit: of a bundle, or of a file "
        ".keras or .weights.h5 [default: the recipe's]",
    )
    group.add_argument(
        "--freeze-epochs",
        metavar="EPOCHS",
        type=int,
        help="with --start-from or a backbone with weights: so many first epochs train new layers "
        "only [default: the recipe's]",
    )
    add_backend_option(group)
    group.add_argument(
        "--size",
        metavar="HxW",
        type=_size,
        help="photos: rows and columns of the net's input, as 150x200 [default: the recipe's]",
    )


def _add_keeping(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--run",
        metavar="DIR",
        type=Path,
        dest="run_folder",
        help="folder for checkpoints, history.csv and TensorBoard events, which stay there; new, "
        "or with --resume that of a training to go on with [default: one in the models folder, "
        "while the training is not published]",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest good checkpoint; the weights become those of a training that "
        "was never stopped; another --min-accuracy may be given and, but for a schedule cosine, "
        "other --epochs",
    )
    group.add_argument(
        "--resume-or-start",
        action="store_true",
        help="go on if there is a checkpoint, and start if there is none: for what starts the same "
        "command again after a failure",
    )
    group.add_argument(
        "--checkpoint-seconds",
        metavar="SECONDS",
        type=float,
        default=CHECKPOINT_SECONDS,
        help="within an epoch, a checkpoint so long after the last one, 0 for one after each step; "
        "there is one at the end of every epoch, too [default: %(default)g]",
    )


def _add_tracking(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mlflow",
        metavar="URI",
        help="record the training while it runs in MLflow: a folder, sqlite:///FILE, or the "
        "address of a server [default: nowhere]",
    )
    group.add_argument(
        "--mlflow-experiment",
        metavar="NAME",
        help="that the run is in; made if it is not there [default: the model's name]",
    )
    group.add_argument(
        "--mlflow-register",
        metavar="NAME",
        help="make what is published the next version of this model in MLflow's registry "
        "[default: no version]",
    )
    group.add_argument(
        "--tracker",
        metavar="MODULE:CLASS",
        action="append",
        default=[],
        help="report the training to a class of yours, a convserve_trainer.tracking.tracker."
        "Tracker; may be given several times",
    )


def _add_publishing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--min-accuracy",
        metavar="SHARE",
        type=float,
        help="least share of held-out images that are right, 0 to 1 [default: the recipe's]",
    )
    group.add_argument(
        "--calibrate",
        action="store_true",
        help="keep 5,000 training images, or a tenth of fewer than 50,000, out of the training and "
        "make the published probabilities as sure as they are right on these: one temperature, "
        "folded into the last layer",
    )
    precision_options.add(group, "float32")
    group.add_argument(
        "--models",
        metavar="DIR",
        type=models_option,
        default=os.environ.get(MODELS_VARIABLE) or "models",
        help="folder of all models, or the URL of one on object storage, as s3://BUCKET/FOLDER "
        f"[default: models] [env: {MODELS_VARIABLE}]",
    )
    group.add_argument(
        "--name",
        metavar="NAME",
        help="of the model [default: mnist; of other data as DIR's name, cats-dogs for cats_dogs]",
    )
    add_version(group)
    sign_options.add(group, "sign-", required=False)
    group.add_argument(
        "--unless-published",
        action="store_true",
        help="load the data, but do not train, if the newest version (with --version: that one) "
        "was made from the same data with the same settings, seeds, epochs, precision and backend, "
        "and meets the floor; a --version that was made otherwise is an error",
    )


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE, got {text!r}")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value  # a word without quotes


def _size(text: str) -> dict[str, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"expected a size as 150x200 (150 rows, 200 columns), got {text!r}"
        )
    return {"height": int(found[1]), "width": int(found[2])}


COMMAND = Command(
    "fit",
    "train a net, evaluate it, export it and publish it",
    EPILOG,
    add_options,
    run,
    always,
)

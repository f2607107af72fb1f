"""The command convserve-train."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from convserve_trainer import recipes
from convserve_trainer.errors import Interrupted, TrainerError, UsageError

EXAMPLES = """examples:
  convserve-train fit digits --recipe lecture
  convserve-train inspect models/mnist
"""
FIT_EXAMPLES = """examples:
  convserve-train fit digits --recipe lecture --models models
  convserve-train fit digits --limit 2000 --epochs 1 --name quick
"""
EVALUATE_EXAMPLES = """examples:
  convserve-train evaluate models/mnist
  convserve-train evaluate models/mnist/1/model.onnx --json
"""
INSPECT_EXAMPLES = """examples:
  convserve-train inspect models/mnist
  convserve-train inspect models/mnist/1 --json
"""
RECIPES_EXAMPLES = """examples:
  convserve-train recipes
  convserve-train recipes --json
"""
EXTRA = ("keras", "onnx", "onnxruntime", "onnxslim", "tensorflow", "tf2onnx")
BUNDLE_HELP = "model.onnx, its version folder, or the model's folder (its newest version)"
DATA_HELP = "folder with MNIST's four files, gzip or not [default: the user's cache, or a download]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0; 2 for a wrong option and 1 for any other error, both explained by a line on standard
        error; 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        print(
            f"convserve-train: {error.name} is not installed; run: pip install 'convserve[train]'",
            file=sys.stderr,
        )
        return 1
    except TrainerError as error:
        print(f"convserve-train: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:  # a disk or a permission, not a fault of ours
        print(f"convserve-train: {error}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        print(f"convserve-train: {interruption}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("convserve-train: stopped", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the definition of the command line."""
    command = argparse.ArgumentParser(
        prog="convserve-train",
        description="Train small Keras convnets and publish them as ONNX bundles.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = command.add_subparsers(required=True, metavar="COMMAND")
    _add_fit(commands)
    _add_evaluate(commands)
    _add_inspect(commands)
    _add_recipes(commands)
    return command


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(
    commands: Commands, name: str, what: str, examples: str, run: Callable[..., None]
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_fit(commands: Commands) -> None:
    what = "train a net, evaluate it, export it and publish it"
    command = _add(commands, "fit", what, FIT_EXAMPLES, _fit)
    command.add_argument("task", choices=["digits"], help="what to tell apart")

    data = command.add_argument_group("data")
    data.add_argument("--data", metavar="DIR", type=Path, help=DATA_HELP)
    data.add_argument(
        "--limit",
        metavar="IMAGES",
        type=int,
        help="train on the first so many only, 1 or more [default: all]",
    )

    training = command.add_argument_group(
        "training", "Other epochs, batches or data than the recipe's lift its accuracy floor."
    )
    training.add_argument(
        "--recipe", metavar="NAME", default="lecture", help="settings [default: %(default)s]"
    )
    training.add_argument(
        "--epochs",
        metavar="EPOCHS",
        type=int,
        help="passes over the data, 1 or more [default: the recipe's]",
    )
    training.add_argument(
        "--batch-size",
        metavar="IMAGES",
        type=int,
        help="images a step, 1 or more [default: the recipe's]",
    )
    training.add_argument(
        "--seed",
        metavar="NUMBER",
        type=int,
        help=f"of weights and shuffling, 0 to {recipes.MAX_SEED} [default: the recipe's]",
    )
    training.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last finished epoch of a training that was stopped",
    )

    publishing = command.add_argument_group("publishing")
    publishing.add_argument(
        "--min-accuracy",
        metavar="SHARE",
        type=float,
        help="least share of held-out images that are right, 0 to 1 [default: the recipe's]",
    )
    publishing.add_argument(
        "--models",
        metavar="DIR",
        type=Path,
        default=Path("models"),
        help="folder of all models [default: %(default)s]",
    )
    publishing.add_argument(
        "--name", metavar="NAME", default="mnist", help="of the model [default: %(default)s]"
    )
    publishing.add_argument(
        "--version",
        metavar="NUMBER",
        type=_version,
        help="version, 1 or more, that does not exist [default: the highest plus 1]",
    )


def _add_evaluate(commands: Commands) -> None:
    what = "score a bundle on the held-out digits with ONNX Runtime"
    command = _add(commands, "evaluate", what, EVALUATE_EXAMPLES, _evaluate)
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    command.add_argument("--data", metavar="DIR", type=Path, help=DATA_HELP)
    _add_json(command)


def _add_inspect(commands: Commands) -> None:
    what = "show what a bundle holds and where it comes from"
    command = _add(commands, "inspect", what, INSPECT_EXAMPLES, _inspect)
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    _add_json(command)


def _add_recipes(commands: Commands) -> None:
    command = _add(commands, "recipes", "list the recipes", RECIPES_EXAMPLES, _recipes)
    _add_json(command)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON [default: text]")


def _version(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no version: 1 or more")
    return int(text)


# The commands import what they need when they run: help is instant, and an error in the data
# comes before the seconds that TensorFlow takes to load.


def _fit(options: argparse.Namespace) -> None:
    recipe = recipes.find(options.recipe, options.task).override(
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        limit=options.limit,
        min_accuracy=options.min_accuracy,
    )
    from convserve_trainer.train import train_digits

    train_digits(
        recipe,
        options.models,
        options.name,
        sys.stdout,
        data=options.data,
        version=options.version,
        resume=options.resume,
    )


def _evaluate(options: argparse.Namespace) -> None:
    from convserve_trainer import evaluate, mnist

    file = evaluate.digits_bundle(options.bundle)
    dataset = mnist.load(options.data, lambda line: print(line, file=sys.stderr))
    score = evaluate.evaluate(file, dataset)
    if options.json:
        print(json.dumps({"bundle": str(file)} | score.as_dict()))
    else:
        print(f"{file}: {score}")


def _inspect(options: argparse.Namespace) -> None:
    from convserve_trainer.describe import describe

    description = describe(options.bundle)
    print(json.dumps(description.as_dict(), indent=2) if options.json else description)


def _recipes(options: argparse.Namespace) -> None:
    rows = [asdict(recipe) for recipe in recipes.RECIPES.values()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for name in rows[0]:
        values = ("all" if row[name] is None else str(row[name]) for row in rows)
        print(f"{name:<14} {'  '.join(f'{value:<24}' for value in values)}".rstrip())


if __name__ == "__main__":
    sys.exit(main())

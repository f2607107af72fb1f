"""The command convserve-train."""

import argparse
import json
import operator
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from convserve_bundle.errors import MissingBundleError
from convserve_host import os_errors
from convserve_trainer.check_data import options as check_options
from convserve_trainer.commands import convert_command, fit_command, sources
from convserve_trainer.errors import USER_ERRORS, Interrupted, TrainerError
from convserve_trainer.host import signals, streams
from convserve_trainer.lecture import commands as lecture_commands
from convserve_trainer.sweep import command as sweep_command

EXAMPLES = """examples:
  convserve-train fit digits --recipe lecture
  convserve-train inspect models/mnist
"""
EVALUATE_EXAMPLES = """examples:
  convserve-train evaluate models/mnist
  convserve-train evaluate models/cats-dogs --data cats_dogs --json
"""
COMPARE_EXAMPLES = """examples:
  convserve-train compare models/mnist/1 models/mnist/2
  convserve-train compare models/cats-dogs/1 models/cats-dogs --data cats_dogs --json
"""
INSPECT_EXAMPLES = """examples:
  convserve-train inspect models/mnist
  convserve-train inspect models/mnist/1 --json
"""
RECIPES_EXAMPLES = """examples:
  convserve-train recipes
  convserve-train recipes digits/best > mine.toml
"""
EXTRA = {
    *("cykooz_resizer", "keras", "matplotlib", "msgspec", "onnx", "onnxruntime", "onnxslim"),
    *("simplejpeg", "tensorflow", "tf2onnx"),
}
EXTRAS = {"jax": "train,jax", "jaxlib": "train,jax", "optuna": "train,sweep"}  # of single commands
LESS_MEMORY = (
    "give it more, or train with a smaller --batch-size; with photos, --cache none or a smaller "
    "--size takes less, too"
)
BUNDLE_HELP = "model.onnx, its version folder, or the model's folder (its newest version)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0; 2 for a wrong option or an input that is not there, and 1 for any other error, both
        explained by a line on standard error; 130 after Ctrl-C and 143 after SIGTERM; 141 if nobody
        reads the output any more and the command does nothing else.
    """
    streams.settle()
    try:
        options = parser().parse_args(arguments)
    except SystemExit as end:  # after --help, or a wrong option
        sys.exit(streams.flushed(int(end.code or 0)))
    options.typed = ["convserve-train", *(sys.argv[1:] if arguments is None else arguments)]
    if options.outlives(options):
        streams.outlive()
    with signals.raised():
        return streams.flushed(_run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        options.run(options)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA | EXTRAS.keys():
            raise
        extra = EXTRAS.get(error.name, "train")
        print(
            f"convserve-train: {error.name} is not installed; run: pip install "
            f"'convserve[{extra}]'",
            file=sys.stderr,
        )
        return 1
    except USER_ERRORS as error:
        print(f"convserve-train: {error}", file=sys.stderr)
        return _status(error)
    except OSError as error:  # a disk or a permission, not a fault of ours
        if error.filename == streams.OUTPUT:
            return streams.refused(error)
        print(f"convserve-train: {os_errors.described(error)}", file=sys.stderr)
        return 1
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        print(f"convserve-train: out of memory{what}; {LESS_MEMORY}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        print(f"convserve-train: {interruption}", file=sys.stderr)
        return interruption.status
    except signals.Stopped as stop:
        print("convserve-train: stopped", file=sys.stderr)
        return stop.status
    return 0


def _status(error: Exception) -> int:
    """Returns the exit status after an error: 2 where the command line is wrong, else 1."""
    if isinstance(error, TrainerError):
        return error.status
    return 2 if isinstance(error, MissingBundleError) else 1


def parser() -> argparse.ArgumentParser:
    """Returns the definition of the command line."""
    command = argparse.ArgumentParser(
        prog="convserve-train",
        description="Train small Keras convnets and publish them as ONNX bundles.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        *("-V", "--version"),
        action=_Version,
        nargs=0,
        help="show program's version number and exit",
    )
    commands = command.add_subparsers(required=True, metavar="COMMAND")
    _add_check_data(commands)
    _add_fit(commands)
    _add_convert(commands)
    _add_sweep(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    _add_inspect(commands)
    _add_recipes(commands)
    _add_lecture(commands)
    return command


class _Version(argparse.Action):
    """Prints the version; looks it up no sooner."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"convserve-train {version('convserve')}")
        parser.exit()


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(
    commands: Commands,
    name: str,
    what: str,
    examples: str,
    run: Callable[..., None],
    outlives: Callable[[argparse.Namespace], bool] = lambda options: False,
) -> argparse.ArgumentParser:
    """Adds a command; `outlives` is whether it goes on when nobody reads its output."""
    command = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run, outlives=outlives)
    return command


def _always(options: argparse.Namespace) -> bool:
    return True


def _add_fit(commands: Commands) -> None:
    what = "train a net, evaluate it, export it and publish it"
    command = _add(commands, "fit", what, fit_command.EXAMPLES, fit_command.run, _always)
    fit_command.add_options(command)


def _add_convert(commands: Commands) -> None:
    what, examples = convert_command.WHAT, convert_command.EXAMPLES
    convert_command.add_options(
        _add(commands, "convert", what, examples, convert_command.run, _always), BUNDLE_HELP
    )


def _add_sweep(commands: Commands) -> None:
    what, examples = sweep_command.WHAT, sweep_command.EXAMPLES
    sweep_command.add_options(_add(commands, "sweep", what, examples, sweep_command.run, _always))


def _add_evaluate(commands: Commands) -> None:
    what = "score a bundle on held-out pictures with ONNX Runtime"
    command = _add(commands, "evaluate", what, EVALUATE_EXAMPLES, _evaluate)
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    sources.add_options(command)
    _add_json(command)


def _add_compare(commands: Commands) -> None:
    what = "say whether one of two bundles is better, on the same held-out pictures"
    command = _add(commands, "compare", what, COMPARE_EXAMPLES, _compare)
    command.add_argument("a", metavar="A", type=Path, help=BUNDLE_HELP)
    command.add_argument("b", metavar="B", type=Path, help="likewise")
    sources.add_options(command)
    _add_json(command)


def _add_inspect(commands: Commands) -> None:
    what = "show what a bundle holds and where it comes from"
    command = _add(commands, "inspect", what, INSPECT_EXAMPLES, _inspect)
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    _add_json(command)


def _add_recipes(commands: Commands) -> None:
    what = "list the recipes, or show the file of one"
    command = _add(commands, "recipes", what, RECIPES_EXAMPLES, _recipes)
    command.add_argument(
        "recipe",
        metavar="TASK/NAME",
        nargs="?",
        help="to be shown, as a file to begin with, for fit --recipe mine.toml [default: a list of "
        "all]",
    )
    _add_json(command)


def _add_check_data(commands: Commands) -> None:
    what, examples = check_options.WHAT, check_options.EXAMPLES
    fixes = operator.attrgetter("fix")
    check_options.add(_add(commands, "check-data", what, examples, _check_data, fixes))


def _add_lecture(commands: Commands) -> None:
    what, examples = lecture_commands.EXPLAIN, lecture_commands.EXPLAIN_EXAMPLES
    explain = _add(commands, "explain", what, examples, lecture_commands.explain)
    lecture_commands.add_explain_options(explain)
    what, examples = lecture_commands.LECTURE, lecture_commands.LECTURE_EXAMPLES
    lecture = _add(commands, "lecture", what, examples, lecture_commands.lecture, _always)
    lecture_commands.add_lecture_options(lecture)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON [default: text]")


# The commands import what they need when they run: help is instant, and an error in the data
# comes before the seconds that TensorFlow takes to load.


def _evaluate(options: argparse.Namespace) -> None:
    from convserve_trainer.bundles import evaluate

    file, manifest = evaluate.check(options.bundle)
    pictures = sources.held_out(options, manifest, _note)
    score = evaluate.evaluate(file, pictures)
    if options.json:
        print(json.dumps({"bundle": str(file)} | score.as_dict()))
    else:
        print(f"{file}: {score}")


def _compare(options: argparse.Namespace) -> None:
    from convserve_trainer.bundles.compare import compare

    compared = compare(
        options.a,
        options.b,
        lambda manifest: sources.held_out(options, manifest, _note),
    )
    print(json.dumps(compared.as_dict()) if options.json else compared)


def _note(line: str) -> None:
    print(line, file=sys.stderr)


def _inspect(options: argparse.Namespace) -> None:
    from convserve_trainer.bundles.describe import describe

    description = describe(options.bundle)
    print(json.dumps(description.as_dict(), indent=2) if options.json else description)


def _recipes(options: argparse.Namespace) -> None:
    from convserve_trainer.recipes import recipe_files

    if options.recipe is not None:
        print(recipe_files.shown(options.recipe), end="")
        return
    every = recipe_files.every()
    if options.json:
        print(json.dumps([recipe.values() for recipe in every], indent=2))
        return
    for recipe in every:
        print(f"{recipe.task}/{recipe.name:<12} {recipe.about}")


def _check_data(options: argparse.Namespace) -> None:
    from convserve_trainer.check_data.command import Output, run

    run(options.folder, options.fix, Output(sys.stdout, sys.stderr, options.json, options.all))


if __name__ == "__main__":
    sys.exit(main())

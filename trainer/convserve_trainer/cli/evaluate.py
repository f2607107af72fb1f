"""The command convserve-train evaluate."""

import argparse
import json
from pathlib import Path

from convserve_trainer.cli import data_options
from convserve_trainer.cli.command import BUNDLE_HELP, Command, add_json, print_note

EPILOG = """examples:
  convserve-train evaluate models/mnist
  convserve-train evaluate models/cats-dogs --data cats_dogs --json
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    data_options.add(command)
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Prints the score of a bundle.

    Raises:
        TrainerError: anything a user can mend.
        BundleError: there is no bundle, or a damaged one.
    """
    from convserve_trainer.bundles import evaluate

    file, manifest = evaluate.check(options.bundle)
    pictures = data_options.held_out(options, manifest, print_note)
    score = evaluate.evaluate(file, pictures)
    if options.json:
        print(json.dumps({"bundle": str(file)} | score.as_dict()))
    else:
        print(f"{file}: {score}")


COMMAND = Command(
    "evaluate",
    "score a bundle on held-out pictures with ONNX Runtime",
    EPILOG,
    add_options,
    run,
)

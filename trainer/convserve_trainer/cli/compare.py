"""The command convserve-train compare."""

import argparse
import json
from pathlib import Path

from convserve_trainer.cli import data_options
from convserve_trainer.cli.command import BUNDLE_HELP, Command, add_json, print_note

EPILOG = """examples:
  convserve-train compare models/mnist/1 models/mnist/2
  convserve-train compare models/cats-dogs/1 models/cats-dogs --data cats_dogs --json
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("a", metavar="A", type=Path, help=BUNDLE_HELP)
    command.add_argument("b", metavar="B", type=Path, help="likewise")
    data_options.add(command)
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Prints whether one of two bundles is better.

    Raises:
        TrainerError: anything a user can mend.
        BundleError: there is no bundle, or a damaged one.
    """
    from convserve_trainer.bundles.compare import compare

    compared = compare(
        options.a,
        options.b,
        lambda manifest: data_options.held_out(options, manifest, print_note),
    )
    print(json.dumps(compared.as_dict()) if options.json else compared)


COMMAND = Command(
    "compare",
    "say whether one of two bundles is better, on the same held-out pictures",
    EPILOG,
    add_options,
    run,
)

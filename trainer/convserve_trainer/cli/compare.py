"""The command convserve-train compare."""

import argparse
import json
from functools import partial
from pathlib import Path

from convserve_trainer.cli import data_options
from convserve_trainer.cli.command import BUNDLE_HELP, Command, add_json, print_note

EPILOG = """examples:
  convserve-train compare models/mnist/1 models/mnist/2
  convserve-train compare models/pets/1 models/pets --data cats_dogs --data at_night --json
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("a", metavar="A", type=Path, help=BUNDLE_HELP)
    command.add_argument("b", metavar="B", type=Path, help="likewise")
    data_options.add(command, several=True)
    data_options.add_part(command)
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Prints whether one of two bundles is better.

    Raises:
        TrainerError: anything a user can mend.
        BundleError: there is no bundle, or a damaged one.
    """
    from convserve_trainer.bundles.compare import SeveralComparisons, compare

    folders: list[Path | None] = options.data or [None]
    found = [
        compare(
            options.a,
            options.b,
            partial(data_options.held_out, _with_data(options, folder), say=print_note),
        )
        for folder in folders
    ]
    compared = SeveralComparisons(list(map(str, folders)), found) if len(found) > 1 else found[0]
    print(json.dumps(compared.as_dict()) if options.json else compared)


def _with_data(options: argparse.Namespace, folder: Path | None) -> argparse.Namespace:
    """Returns the options with one folder of data."""
    return argparse.Namespace(**vars(options) | {"data": folder})


COMMAND = Command(
    "compare",
    "say whether one of two bundles is better, on the same held-out pictures",
    EPILOG,
    add_options,
    run,
)

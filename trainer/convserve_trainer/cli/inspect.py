"""The command convserve-train inspect."""

import argparse
import json
from pathlib import Path

from convserve_trainer.cli.command import BUNDLE_HELP, Command, add_json

EPILOG = """examples:
  convserve-train inspect models/mnist
  convserve-train inspect models/mnist/1 --json
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Prints what a bundle holds.

    Raises:
        BundleError: there is no bundle, or a damaged one.
    """
    from convserve_trainer.bundles.describe import describe

    description = describe(options.bundle)
    print(json.dumps(description.as_dict(), indent=2) if options.json else description)


COMMAND = Command(
    "inspect",
    "show what a bundle holds and where it comes from",
    EPILOG,
    add_options,
    run,
)

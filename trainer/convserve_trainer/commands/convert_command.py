"""The command convserve-train convert."""

import argparse
import sys
from pathlib import Path

from convserve_trainer.commands import fit_command, precision_options, sources

WHAT = "publish a trained net in another precision, without training it again"
EXAMPLES = """examples:
  convserve-train convert models/mnist --precision int8
  convserve-train convert models/cats-dogs --precision int8 --data cats_dogs --name cats-dogs-int8
"""


def add_options(command: argparse.ArgumentParser, bundle_help: str) -> None:
    """Adds the options of the command.

    Args:
        command: that they are added to.
        bundle_help: what BUNDLE may be.
    """
    help_ = f"of float32 or tf32: {bundle_help}"
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=help_)
    sources.add_options(
        command.add_argument_group("data", "Those that the net was trained on, as for fit.")
    )
    group = command.add_argument_group("publishing")
    precision_options.add(group, None)
    group.add_argument(
        "--min-accuracy",
        metavar="SHARE",
        type=float,
        help="least share of held-out images that are right, 0 to 1 [default: as for BUNDLE]",
    )
    group.add_argument(
        "--models", metavar="DIR", type=Path, help="folder of all models [default: BUNDLE's]"
    )
    group.add_argument("--name", metavar="NAME", help="of the model [default: BUNDLE's]")
    group.add_argument(
        "--version",
        metavar="NUMBER",
        type=fit_command.version,
        help="version, 1 or more, that does not exist [default: the highest plus 1]",
    )


def run(options: argparse.Namespace) -> None:
    """Publishes a net in another precision.

    Raises:
        TrainerError: anything a user can mend.
    """
    settings = precision_options.settings(options)
    from convserve_trainer.bundles import convert

    convert.convert(
        options.bundle,
        settings,
        lambda said: sources.of_bundle(options, said, lambda line: print(line, flush=True)),
        convert.Place(options.models, options.name, options.version),
        options.min_accuracy,
        sys.stdout,
    )

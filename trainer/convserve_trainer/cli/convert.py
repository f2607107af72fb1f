"""The command convserve-train convert."""

import argparse
import sys
from pathlib import Path

from convserve_trainer.cli import data_options, precision_options, sign_options
from convserve_trainer.cli.command import (
    BUNDLE_HELP,
    Command,
    add_version,
    always,
    models_option,
    open_store,
    print_line,
)

EPILOG = """examples:
  convserve-train convert models/mnist --precision int8
  convserve-train convert models/cats-dogs --precision int8 --data cats_dogs --name cats-dogs-int8
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    help_ = f"of float32, tf32 or bfloat16: {BUNDLE_HELP}"
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=help_)
    data_options.add(
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
        "--models",
        metavar="DIR",
        type=models_option,
        help="folder of all models, or the URL of one on object storage [default: BUNDLE's]",
    )
    group.add_argument("--name", metavar="NAME", help="of the model [default: BUNDLE's]")
    add_version(group)
    sign_options.add(group, "sign-", required=False)


def run(options: argparse.Namespace) -> None:
    """Publishes a net in another precision.

    Raises:
        TrainerError: anything a user can mend.
    """
    export_options = precision_options.read(options)
    signer = sign_options.read(options, "sign-")
    store = open_store(options.models)
    from convserve_trainer.bundles import convert

    convert.convert(
        options.bundle,
        export_options,
        lambda manifest: data_options.of_bundle(options, manifest, print_line),
        sys.stdout,
        models=None if store else options.models,
        name=options.name,
        version=options.version,
        min_accuracy=options.min_accuracy,
        signer=signer,
        store=store,
    )


COMMAND = Command(
    "convert",
    "publish a trained net in another precision, without training it again",
    EPILOG,
    add_options,
    run,
    always,
)

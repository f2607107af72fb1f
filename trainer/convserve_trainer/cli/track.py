"""The command convserve-train track."""

import argparse
from pathlib import Path

from convserve_trainer.cli.command import BUNDLE_HELP, Command, always, print_line

EPILOG = """examples:
  convserve-train track models/mnist --mlflow mlruns
  convserve-train track models/mnist/3 --mlflow http://localhost:5000 --register mnist
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    command.add_argument(
        "--mlflow",
        metavar="URI",
        required=True,
        help="MLflow's store: a folder, sqlite:///FILE, or the address of a server",
    )
    command.add_argument(
        "--experiment",
        metavar="NAME",
        help="that the run is in; made if it is not there [default: the model's name]",
    )
    command.add_argument(
        "--register",
        metavar="NAME",
        help="make it the next version of this model in MLflow's registry [default: no version]",
    )


def run(options: argparse.Namespace) -> None:
    """Records a bundle as a run of MLflow.

    Raises:
        TrackerError: MLflow refuses, or cannot be reached.
        BundleError: there is no bundle, or a damaged one.
    """
    from convserve_bundle.folder import find_bundle
    from convserve_trainer.bundles import mlflow_run

    file = find_bundle(options.bundle)
    recorded = mlflow_run.record(file, options.mlflow, options.experiment, options.register)
    print_line(f"{file}: {recorded}")


COMMAND = Command(
    "track",
    "record a bundle as a run of MLflow: settings, epochs, figures and files",
    EPILOG,
    add_options,
    run,
    always,
)

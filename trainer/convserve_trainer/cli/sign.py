"""The command convserve-train sign."""

import argparse
from pathlib import Path

from convserve_trainer.cli import sign_options
from convserve_trainer.cli.command import BUNDLE_HELP, Command, always, print_line

EPILOG = """examples:
  convserve-train sign models/mnist --key signing.pem
  convserve-train sign models/mnist/1 --key signing.pem --certificate signing.crt
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    sign_options.add(command, required=True)


def run(options: argparse.Namespace) -> None:
    """Signs a bundle.

    Raises:
        UsageError: a chain without a certificate
        BundleError: there is no bundle, or it is not what its digests say.
        SigningError: the key cannot be used.
    """
    from convserve_bundle import folder, signing, verification
    from convserve_bundle.errors import BundleError

    signer = sign_options.read(options)
    assert signer is not None, "the key is required"
    model = folder.find_bundle(options.bundle)
    try:
        verification.verify_bundle(model)
    except BundleError as error:
        raise BundleError(f"{model.parent}: {error}") from error
    path = signing.write(signing.sign(model.parent, signer), model.parent)
    print_line(f"signed {model.parent}: {path}")


COMMAND = Command(
    "sign",
    "sign all files of a published bundle",
    EPILOG,
    add_options,
    run,
    always,
)

"""The command convserve-train verify."""

import argparse
from pathlib import Path

from convserve_trainer.cli.command import BUNDLE_HELP, Command, print_line

EPILOG = """examples:
  convserve-train verify models/mnist
  convserve-train verify models/mnist/1 --key signing.pub
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    command.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        help="public keys, or certificates of authorities (PEM), one of which must have signed it "
        "[default: its digests alone are compared]",
    )


def run(options: argparse.Namespace) -> None:
    """Compares a bundle with its file of digests, and with its signature.

    Raises:
        BundleError: there is no bundle, or it is not what they say.
        SigningError: the keys cannot be used.
    """
    from convserve_bundle import folder, signing, verification
    from convserve_bundle.contract import DIGESTS_FILE
    from convserve_bundle.errors import BundleError

    model = folder.find_bundle(options.bundle)
    trust = signing.Trust(options.key) if options.key else None
    try:
        found = verification.verify_bundle(model, trust.statement if trust else None)
    except BundleError as error:
        raise BundleError(f"{model.parent}: {error}") from error
    if not found:
        raise BundleError(f"{model.parent}: {DIGESTS_FILE}: expected a file of digests, got none")
    for name, count in found.items():
        print_line(f"{model.parent}: as {name} says, {count} file{'s' if count > 1 else ''}")


COMMAND = Command(
    "verify",
    "compare a bundle with its digests, and with its signature",
    EPILOG,
    add_options,
    run,
)

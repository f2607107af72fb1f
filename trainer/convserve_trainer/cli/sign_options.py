"""The options that say who signs what is published."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convserve_bundle.signing import Signer


def add(
    group: argparse.ArgumentParser | argparse._ArgumentGroup, prefix: str = "", *, required: bool
) -> None:
    """Adds the options.

    Args:
        group: that they belong to.
        prefix: of their names, as "sign-".
        required: whether a key must be given.
    """
    none = "" if required else " [default: none, it is not signed]"
    group.add_argument(
        f"--{prefix}key",
        dest="sign_key",
        metavar="FILE",
        type=Path,
        required=required,
        help=f"private key on an elliptic curve (PEM, not encrypted){none}",
    )
    group.add_argument(
        f"--{prefix}certificate",
        dest="sign_certificate",
        metavar="FILE",
        type=Path,
        help="certificate of the key (PEM), so that its authority can be trusted in place of the "
        "key [default: none]",
    )
    group.add_argument(
        f"--{prefix}chain",
        dest="sign_chain",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="certificate between that and its authority (PEM); may be repeated",
    )


def read(options: argparse.Namespace, prefix: str = "") -> "Signer | None":
    """Returns who signs; None for nobody.

    Raises:
        UsageError: a certificate without a key, or a chain without a certificate.
    """
    from convserve_bundle.signing import Signer
    from convserve_trainer.errors import UsageError

    for option, given, needed in (
        ("certificate", options.sign_certificate, "key"),
        ("chain", options.sign_chain, "certificate"),
    ):
        if given and not getattr(options, f"sign_{needed}"):
            raise UsageError(f"--{prefix}{option}: expected --{prefix}{needed} beside it, got none")
    if options.sign_key is None:
        return None
    return Signer(options.sign_key, options.sign_certificate, tuple(options.sign_chain))

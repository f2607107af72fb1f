"""What the parser needs of a command, and options that several have."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_store.errors import StoreUrlError
from convserve_store.location import check_url, is_url

if TYPE_CHECKING:
    from convserve_store.bundles import BundleStore

BUNDLE_HELP = "model.onnx, its version folder, or the model's folder (its newest version)"


def never(options: argparse.Namespace) -> bool:
    """Returns False: the command's output is all that it does."""
    return False


def always(options: argparse.Namespace) -> bool:
    """Returns True: the command does its work whether its output is read or not."""
    return True


@dataclass(frozen=True)
class Command:
    """A command of convserve-train.

    Its functions import what they need when they are called: help is instant, and an error in the
    data comes before the seconds that TensorFlow takes to load.

    Attributes:
        name: as it is typed.
        summary: what it does, without a capital and a full stop.
        epilog: end of its help: two examples.
        add_options: adds its options to its parser.
        run: runs it; raises what the user can mend.
        outlives_reader: whether it goes on when nobody reads its output any more.
    """

    name: str
    summary: str
    epilog: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    outlives_reader: Callable[[argparse.Namespace], bool] = never


def add_json(command: argparse.ArgumentParser) -> None:
    """Adds the option that prints JSON."""
    command.add_argument("--json", action="store_true", help="print JSON [default: text]")


def add_version(group: argparse._ActionsContainer) -> None:
    """Adds the option that chooses the version that is published."""
    group.add_argument(
        "--version",
        metavar="NUMBER",
        type=_version,
        help="version, 1 or more, that does not exist [default: the highest plus 1]",
    )


def models_option(text: str) -> Path | str:
    """Returns what --models names: a folder, or the URL of one on object storage."""
    if not is_url(text):
        return Path(text)
    try:
        return check_url(text)
    except StoreUrlError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def open_store(models: Path | str | None) -> "BundleStore | None":
    """Returns the store of --models; None where it names a folder.

    Raises:
        StoreError: its client refuses its settings.
    """
    if not isinstance(models, str):
        return None
    from convserve_store.bundles import BundleStore
    from convserve_store.location import open_location

    return BundleStore(open_location(models, "--models"))


def print_line(line: str) -> None:
    """Prints a line on what is done to standard output."""
    print(line, flush=True)


def print_note(line: str) -> None:
    """Prints a line on what is done to standard error, where standard output is the result."""
    print(line, file=sys.stderr, flush=True)


def _version(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a version, 1 or more, got {text!r}")
    return int(text)

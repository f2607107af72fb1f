"""The command convserve-train drift."""

import argparse
import json
from pathlib import Path

from convserve_bundle.stability import LARGE
from convserve_trainer.cli import data_options
from convserve_trainer.cli.command import BUNDLE_HELP, Command, add_json, print_note
from convserve_trainer.datasets.columns import USUAL
from convserve_trainer.errors import DriftError, UsageError

NAMED = 3  # unreadable files

EPILOG = """examples:
  convserve-train drift models/cats-dogs photos/of-this-week
  convserve-train drift models/mnist scans --threshold 0.5 --json

Exit status 3: the pictures are unlike those that the net knows, by one measure or more.
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    command.add_argument(
        "pictures",
        metavar="PICTURES",
        type=Path,
        help="folder of picture files, in it or in folders below it; a file; or a list of pictures "
        "(CSV, Parquet, a folder of Hugging Face's datasets)",
    )
    data_options.add_columns(command)
    command.add_argument(
        "--threshold",
        metavar="PSI",
        type=float,
        default=LARGE,
        help="population stability index from which on a measure has drifted, above 0 "
        "[default: %(default)s]",
    )
    command.add_argument(
        "--limit",
        metavar="IMAGES",
        type=int,
        default=10_000,
        help="compare so many, evenly from all, 1 or more [default: %(default)s]",
    )
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Prints how far pictures are from those that a net knows.

    Raises:
        DriftError: they are far away.
        TrainerError: anything a user can mend.
        BundleError: there is no bundle, a damaged one, or one without statistics.
    """
    from convserve_trainer.bundles import drift
    from convserve_trainer.datasets.pictures import Source

    if not 0 < options.threshold < float("inf"):
        raise UsageError(f"--threshold: expected more than 0, got {options.threshold:g}")
    if options.limit < 1:
        raise UsageError(f"--limit: expected 1 or more, got {options.limit}")
    source = Source(options.pictures, columns=options.columns or USUAL)
    found = drift.find(options.bundle, source, options.limit, options.threshold, print_note)
    for path, why in list(found.unreadable.items())[:NAMED]:
        print_note(f"{path}: {why}")
    if len(found.unreadable) > NAMED:
        print_note(f"and {len(found.unreadable) - NAMED:,} more pictures cannot be read")
    print(json.dumps(found.as_dict()) if options.json else found, flush=True)
    if found.drifted:
        raise DriftError(f"drift of {', '.join(found.drifted)}")


COMMAND = Command(
    "drift",
    "say whether pictures are like those that a net was trained on",
    EPILOG,
    add_options,
    run,
)

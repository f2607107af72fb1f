"""The command convserve-train card."""

import argparse
from pathlib import Path

from convserve_host import atomic_file
from convserve_trainer.cli.command import BUNDLE_HELP, Command, print_note
from convserve_trainer.errors import UsageError

EPILOG = """examples:
  convserve-train card models/mnist
  convserve-train card models/mnist --licence apache-2.0 --out README.md
"""

#: Fields of the card, with their help; Hugging Face's words where it has some.
FIELDS = {
    "licence": ("ID", "of the model, as Hugging Face identifies it: apache-2.0, cc-by-4.0, other"),
    "licence-name": ("ID", "of a licence that is other"),
    "licence-link": ("URL", "where to read that one, or LICENSE for a file beside the card"),
    "intended-use": ("TEXT", "what the model is for"),
    "out-of-scope": ("TEXT", "what it must not be used for"),
    "limitations": ("TEXT", "what it does badly"),
    "data-set": ("NAME", "of the data that it was trained on"),
}


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    command.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="written; one that is there is replaced [default: standard output]",
    )
    fields = command.add_argument_group(
        "fields", "What nobody can measure. [default: what the recipe's table card says]"
    )
    for name, (metavar, what) in FIELDS.items():
        fields.add_argument(f"--{name}", metavar=metavar, help=what)


def run(options: argparse.Namespace) -> None:
    """Prints or writes the model card of a bundle.

    Raises:
        UsageError: a field is not what a card can say.
        BundleError: there is no bundle, or a damaged one.
        OSError: the file cannot be written.
    """
    from convserve_bundle.folder import find_bundle
    from convserve_trainer.bundles.card import make_card

    if options.out is not None and not options.out.parent.is_dir():
        raise UsageError(f"--out: expected a file in a folder that exists, got {options.out}")
    names = [name.replace("-", "_") for name in FIELDS]
    given = {name: getattr(options, name) for name in names}
    text = make_card(
        find_bundle(options.bundle),
        {name: value for name, value in given.items() if value is not None},
    )
    if options.out is None:
        print(text, end="")
        return
    with atomic_file.replaced(options.out) as temporary:
        temporary.write_text(text, "utf-8")
    print_note(f"wrote {options.out}")


COMMAND = Command(
    "card",
    "write the model card of a bundle, in the form of Hugging Face",
    EPILOG,
    add_options,
    run,
)

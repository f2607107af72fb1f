"""The command convserve-train evaluate."""

import argparse
import json
from pathlib import Path

from convserve_host import atomic_file
from convserve_trainer.cli import data_options
from convserve_trainer.cli.command import BUNDLE_HELP, Command, add_json, print_note
from convserve_trainer.errors import UsageError

EPILOG = """examples:
  convserve-train evaluate models/mnist
  convserve-train evaluate models/cats-dogs --data cats_dogs --html cats-dogs.html
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help=BUNDLE_HELP)
    data_options.add(command)
    data_options.add_part(command)
    command.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="write a page with all figures and pictures that the net is wrong about; one that is "
        "there is replaced [default: none]",
    )
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Prints how a bundle does.

    Raises:
        TrainerError: anything a user can mend.
        BundleError: there is no bundle, or a damaged one.
        OSError: the page cannot be written.
    """
    from convserve_trainer.bundles import evaluate

    if options.html is not None and not options.html.parent.is_dir():
        raise UsageError(f"--html: expected a file in a folder that exists, got {options.html}")
    file, manifest = evaluate.check(options.bundle)
    pictures = data_options.held_out(options, manifest, print_note)
    found = evaluate.judge(file, manifest, pictures)
    if options.html is not None:
        from convserve_trainer.report import evaluation_page

        page = evaluation_page.make_page(
            evaluation_page.Evaluated(file, manifest, found, options.typed)
        )
        with atomic_file.replaced(options.html) as temporary:
            temporary.write_text(page, "utf-8")
        print_note(f"wrote {options.html}")
    if options.json:
        print(json.dumps({"bundle": str(file)} | found.judgement.as_dict()))
        return
    from convserve_trainer.report import judged

    print(f"{file}: {found.judgement.score}", *judged.tables(found.judgement), sep="\n\n")


COMMAND = Command(
    "evaluate",
    "judge a bundle on held-out pictures with ONNX Runtime: figures of each class, intervals, "
    "mistakes",
    EPILOG,
    add_options,
    run,
)

"""The options of `check-data`."""

import argparse
from pathlib import Path

WHAT = "say what in folders of photographs would spoil a training, and what looks odd"
EXAMPLES = """exit status: 0 if the pictures are fit to train on, 1 if not, 2 for a wrong option or
a folder that is not there

examples:
  convserve-train check-data cats_dogs
  convserve-train check-data cats_dogs --fix --json
"""
FOLDER_HELP = "with train/CLASS/*.jpg and validation/CLASS/*.jpg, or with CLASS/*.jpg alone"
FLAGS = {
    "--fix": "move what is broken or a copy into DIR-set-aside, listed in its moved.tsv; of copies "
    "one stays, of those with two labels none [default: move nothing]",
    "--all": "name everything [default: the first 10 of each kind]",
    "--json": "print JSON [default: text]",
}


def add(command: argparse.ArgumentParser) -> None:
    """Adds them to the command."""
    command.add_argument("folder", metavar="DIR", type=Path, help=FOLDER_HELP)
    for flag, what in FLAGS.items():
        command.add_argument(flag, action="store_true", help=what)

"""Writes docs/commands.md from what the commands say of themselves (make docs)."""

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")

HEAD = """# Commands

Made by `make docs` from the commands' own help.

| exit status | of all programs |
| ---: | --- |
| 0 | done |
| 1 | it failed, or the answer is no (`health`, `check-data`, `--min-accuracy`) |
| 2 | the command line is wrong, or a file or folder that it names is not there |
| 3 | `models --fleet`: the servers differ; `convserve-score`: rows or shards are missing |
| 130, 143 | stopped by Ctrl-C, by SIGTERM; `convserve-serve` then ends with 0 |
| 141 | nobody reads the output any more |

`-V` and `--version` print the version of each program; in subcommands `--version N` is the version
of a model. No option can be shortened.
"""

COMMANDS = {
    "convserve-train": (
        "convserve_trainer.main",
        (
            *("", "check-data", "fit", "sweep", "convert", "evaluate", "compare", "inspect"),
            *("recipes", "explain", "lecture"),
        ),
    ),
    "convserve-serve": ("convserve_server.main", ("",)),
    "convserve-score": ("convserve_scoring.main", ("", "plan", "run", "check")),
    "convserve": (
        "convserve.main",
        (
            *("", "classify", "evaluate", "models", "health", "label"),
            *("label set", "label remove", "label list", "admin", "admin load"),
            *("admin unload", "admin label", "admin list", "bench", "top"),
        ),
    ),
}


def page() -> str:
    """The page: the help of every command, as a terminal of 100 columns shows it."""
    parts = [HEAD]
    for command, (module, subcommands) in COMMANDS.items():
        for subcommand in subcommands:
            title = f"{command} {subcommand}".strip()
            parts.append(f"\n## {title}\n\n```\n{_help(module, subcommand)}\n```\n")
    return "".join(parts)


def _help(module: str, subcommand: str) -> str:
    command = [sys.executable, "-m", module, *subcommand.split(), "--help"]
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


if __name__ == "__main__":
    PAGE.write_text(page())

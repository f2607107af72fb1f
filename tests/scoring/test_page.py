"""docs/scoring.md: its first block is run as it is pasted, and every command is parsed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from convserve_scoring.command_line import parser
from tests.pages import blocks
from tests.scoring.jobs import DAMAGED, rows, write_images

PAGE = blocks((Path(__file__).parents[2] / "docs/scoring.md").read_text())


def test_first_block_does_what_the_page_says(tmp_path: Path, model: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "photos").symlink_to(model)
    write_images(tmp_path / "pictures", 6, {3: DAMAGED})
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # The name of a model is that of its folder, whatever leads there.
    done = subprocess.run(
        ["bash", "-euc", PAGE[0].code],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "6 images in 1 shard, to be scored by colours version 3; next: convserve-score run scored\n"
        "1 shard with 6 images scored, 1 of them with an error; 0 done before, 0 failed\n"
        "whole shards: 1 of 1; images planned: 6; rows with an error: 1\n"
    )
    assert len(rows(tmp_path / "scored")) == 6


def test_commands_of_the_page_are_valid() -> None:
    lines = [line for block in PAGE for line in block.code.splitlines()]
    found = [
        line for line in lines if line.startswith(("convserve-score ", "exec convserve-score "))
    ]
    assert len(found) >= 6
    for line in found:
        _, _, arguments = line.partition("convserve-score ")
        parser().parse_args(shlex.split(arguments.replace("$SLURM_ARRAY_TASK_ID", "1")))

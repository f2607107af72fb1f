"""The command that measures what copying from a store adds."""

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.tables import tables_of

ROOT = Path(__file__).parents[2]


def test_both_servers_are_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.serving.object_storage", "--mib", "1"]
    done = subprocess.run(
        [*command, "--rounds", "1"], cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    [rows] = tables_of(done.stdout)
    folder, storage = rows
    assert (folder[0], storage[0]) == ("folder", "object storage")
    assert folder[-2:] == ["-", "-"]
    copier_mib, question_ms = map(float, storage[-2:])
    assert copier_mib > 10
    assert question_ms > 0

"""Ctrl-C on a real process."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convserve_trainer.bundles import bundle
from tests.program import Program
from tests.trainer.conftest import Small

pytestmark = pytest.mark.timeout(1000)


CODE = "import sys; from convserve_trainer.main import main; sys.exit(main())"


def test_ctrl_c_keeps_finished_epochs_and_resume_publishes_them(
    small: Small, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    command = [sys.executable, "-c", CODE, *small.fit(models, "--seed", "2")]
    with Program[str](
        [*command, "--epochs", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith("2/100000 "):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    matched = re.fullmatch(
        r"convserve-train: stopped; (\d+) of 100,000 epochs(?: and \d+ steps? of the next)? are "
        r"finished and kept in (\S+)\n"
        r"go on with .* --resume, or publish what there is with --resume --epochs (\d+)\n",
        errors,
    )
    assert matched is not None, errors
    finished = int(matched[1])
    assert finished >= 2
    assert Path(matched[2]).is_dir()
    assert os.listdir(models) == [".unfinished"]

    again = [*command, "--resume", "--epochs", matched[3]]
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert f"resumed after epoch {finished}\n" in done.stdout
    assert "accuracy  " not in done.stdout, "nothing is left to train"
    assert "\r" not in done.stdout
    assert done.stderr == ""
    assert os.listdir(models) == ["small"]
    assert bundle.read_manifest(models / "small").training.epochs == finished

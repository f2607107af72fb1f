import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.servers import FRONTS
from benchmarks.robustness.mass_timeouts import LIBRARY, PLAIN
from tests.bundles import write_bundle

ROOT = Path(__file__).parents[3]
WAIT_S = 250.0


def test_library_gets_its_other_calls_answered(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    file = tmp_path / "figures.json"
    options = ["--models", str(tmp_path / "models"), "--json", str(file), "--timeouts", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.robustness.mass_timeouts", *options, "--rounds", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(file.read_text())["outcomes"]
    found = [(each["front"], each["client"]) for each in outcomes]
    assert found == [(front, client) for front in FRONTS for client in (PLAIN, LIBRARY)]
    for each in outcomes:
        if each["client"] == LIBRARY or each["front"] == "grpcio":
            assert each["answered"] == each["others"] == 16, each

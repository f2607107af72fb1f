import json
import subprocess
import sys
from pathlib import Path

from tests.bundles import write_bundle

ROOT = Path(__file__).parents[3]
WAIT_S = 280.0


def test_calls_that_are_lost_are_counted(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    file = tmp_path / "figures.json"
    options = ["--models", str(tmp_path / "models"), "--json", str(file), "--calls", "300"]
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.robustness.lost_calls", *options,
            "--balancing", "client", "--front", "native", "--age-s", "1",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(file.read_text())["outcomes"]
    ways = ["the client, Client", "the client, AsyncClient"]
    assert [each["way"] for each in outcomes] == ways
    for each in outcomes:
        assert each["calls"] >= 300
        assert each["lost"] == {}
        assert each["way"] in done.stdout

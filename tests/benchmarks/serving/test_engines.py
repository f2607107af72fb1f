import subprocess
import sys
from pathlib import Path

import pytest

from convserve_server.engines import openvino
from tests.bundles import write_bundle

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(bool(openvino._version()), reason="the plug-in of OpenVINO is installed")
def test_machine_without_openvino_names_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.serving.engines", str(write_bundle(tmp_path))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "python -m benchmarks.serving.engines: engine openvino: onnxruntime-ep-openvino is not "
        "installed; run: pip install 'convserve[openvino]'\n"
    )

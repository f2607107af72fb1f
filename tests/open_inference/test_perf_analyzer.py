"""perf_analyzer, the load generator inside the wheel of tritonclient 2.41, ends with a report."""

import re
import subprocess

import pytest

from tests.open_inference.conftest import PEERS, WAIT_S, Served, python_of

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(120)]

ENVIRONMENT = "tritonclient-2.41"
CALLERS = 4


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("model", ["simple", "mnist"])
def test_report(model: str, protocol: str, served: Served) -> None:
    python_of(ENVIRONMENT)
    (libraries,) = (PEERS / ENVIRONMENT).glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib")
    address = served.grpc if protocol == "grpc" else served.http
    # Two windows of 400 ms that may differ as they like: what is measured is not looked at.
    done = subprocess.run(
        [
            PEERS / ENVIRONMENT / "bin" / "perf_analyzer", "-m", model, "-i", protocol,
            "-u", address, "--concurrency-range", str(CALLERS), "-p", "400", "-s", "999", "-r", "3",
        ],
        capture_output=True, text=True, timeout=WAIT_S, env={"LD_LIBRARY_PATH": str(libraries)},
    )  # fmt: skip
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    summary = re.search(rf"Concurrency: {CALLERS}, throughput: ([\d.]+) infer/sec", report)
    assert summary is not None, report
    assert float(summary[1]) > 0
    counted = re.search(r"Inference count: (\d+)", report)
    assert counted is not None, report
    assert int(counted[1]) > 0

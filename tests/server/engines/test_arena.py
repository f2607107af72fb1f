"""Sessions on the CPU compute in one arena; what none needs is given back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Of the result of a batch of 32, float32 [32, 64, 64, 64].
BATCH_MIB = 32

SCRIPT = """
import gc, sys
from pathlib import Path
import numpy as np
from convserve_server.engines import arena
from convserve_server.engines.base import CPU
from convserve_server.engines.loader import EngineOptions, _session
from convserve_server.host import heap

def held():
    heap.trim()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))

arena.shrink()  # nothing is there yet
pixels = np.ones((32, 1, 64, 64), np.float32)
before = held()
sessions = [_session(Path(sys.argv[1]), CPU, EngineOptions(threads=1)) for _ in range(6)]
answers = [session.run(None, {"x": pixels})[0] for session in sessions]
assert all((one == answers[0]).all() for one in answers)
loaded = held() - before
del sessions, answers
gc.collect()
arena.shrink()
print(loaded, held() - before)
"""


def wide(path: Path) -> Path:
    """A net that makes 64 numbers of each and then one of all."""
    weights = np.ones((64, 1, 3, 3), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["wide"], pads=[1, 1, 1, 1]),
            helper.make_node("ReduceMax", ["wide"], ["y"], axes=[1, 2, 3], keepdims=0),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 15)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), path)
    return path


def test_sessions_share_memory_and_give_it_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(wide(tmp_path / "wide.onnx"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded, left = map(float, done.stdout.split())
    # Of six arenas each would hold a batch and more; one holds that once, in pieces that double.
    assert BATCH_MIB < loaded < 5 * BATCH_MIB
    assert left < BATCH_MIB / 2

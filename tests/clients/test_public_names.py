import json
import subprocess
import sys

import convserve

NAMES = [
    "AsyncClient",
    "BadImage",
    "Cancelled",
    "Classification",
    "Client",
    "ClientClosed",
    "ConvserveError",
    "DeadlineExceeded",
    "FieldViolation",
    "Guess",
    "Health",
    "InvalidRequest",
    "MessageTooLarge",
    "ModelInfo",
    "ModelNotFound",
    "NotSupported",
    "PermissionDenied",
    "Result",
    "ServerBusy",
    "ServerFault",
    "ServerUnavailable",
    "Timings",
    "Unauthenticated",
    "UnexpectedReply",
]


def test_public_names_are_these() -> None:
    assert convserve.__all__ == NAMES
    assert all(hasattr(convserve, name) for name in NAMES)


def modules_after(statement: str) -> set[str]:
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    return {name.split(".")[0] for name in json.loads(done.stdout)}


def test_library_brings_no_other_room_and_no_framework() -> None:
    modules = modules_after("import convserve")
    assert {"convserve", "convserve_protos", "grpc", "numpy"} <= modules
    assert not modules & {
        "convserve_imaging",  # and with it Pillow, which only the command needs
        "convserve_server",
        "convserve_trainer",
        "onnxruntime",
        "PIL",
        "tensorflow",
    }


def test_command_brings_nothing_that_only_digits_or_a_progress_bar_need() -> None:
    modules = modules_after("import convserve.main")
    assert not modules & {
        "convserve_server",
        "convserve_trainer",
        "onnxruntime",
        "PIL",
        "tensorflow",
        "tqdm",
    }

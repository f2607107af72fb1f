import json
import subprocess
import sys

import pytest

import convserve

NAMES = [
    "AsyncClient",
    "BadImage",
    "Cancelled",
    "CannotMeetDeadline",
    "ClassScore",
    "Classification",
    "Client",
    "ClientClosed",
    "ConvserveError",
    "DeadlineExceeded",
    "FieldViolation",
    "ForkedProcess",
    "Health",
    "InvalidRequest",
    "MessageTooLarge",
    "ModelInfo",
    "ModelNotFound",
    "NotSupported",
    "OtherEventLoop",
    "PermissionDenied",
    "RefusedVersion",
    "Result",
    "ServerBusy",
    "ServerFault",
    "ServerUnavailable",
    "Timings",
    "TlsFailed",
    "Unauthenticated",
    "UnexpectedReply",
]


def test_public_names_are_these() -> None:
    assert convserve.__all__ == NAMES
    assert all(hasattr(convserve, name) for name in NAMES)


def full_names_after(statement: str) -> set[str]:
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    return set(json.loads(done.stdout))


def modules_after(statement: str) -> set[str]:
    return {name.split(".")[0] for name in full_names_after(statement)}


def test_each_public_name_is_where_its_annotation_says() -> None:
    for name in NAMES:
        value = getattr(convserve, name)
        assert value.__name__ == name
        assert vars(convserve)[name] is value  # Looked up once.
    assert set(NAMES) <= set(dir(convserve))


def test_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'convserve' has no attribute 'Clinet'"):
        _ = convserve.Clinet  # type: ignore[attr-defined]  # Which mypy sees, too.


def test_star_brings_the_public_names() -> None:
    program = "from convserve import *; print(sorted(n for n in dir() if n[0] != '_'))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(NAMES)


def test_library_brings_nothing_before_it_is_used() -> None:
    assert not modules_after("import convserve") & {"convserve_protos", "grpc", "numpy"}


def test_library_brings_no_other_package_and_no_framework() -> None:
    modules = modules_after("from convserve import *")
    assert {"convserve", "convserve_protos", "grpc", "numpy"} <= modules
    assert not modules & {
        "convserve_imaging",  # and with it Pillow, which only the command needs
        "convserve_server",
        "convserve_trainer",
        "onnxruntime",
        "PIL",
        "tensorflow",
    }


def test_health_check_brings_what_it_needs_and_no_more() -> None:
    # The address is one where nobody listens on TCP: port 1 of this machine.
    program = (
        "from convserve.main import main\n"
        "import contextlib, os\n"
        "with contextlib.redirect_stderr(open(os.devnull, 'w')):\n"
        "    assert main(['health', '--server', '127.0.0.1:1']) == 1"
    )
    modules = modules_after(program)
    assert {"grpc", "grpc_health"} <= modules
    assert not modules & {"convserve_imaging", "convserve_protos", "numpy", "PIL", "tqdm"}
    assert "importlib.metadata" not in full_names_after("import convserve.main")


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

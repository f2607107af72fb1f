"""What is loaded where a signature is required: the bytes that were verified."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from convserve_bundle.held_model import HeldModel, Model
from convserve_server.core.digests import Digests
from convserve_server.core.preparer import Preparer
from convserve_server.core.tables import Bundle
from convserve_server.engines.base import EngineError
from tests import onnx_models

WAIT_S = 60.0


def failure_of(path: Path, bundle: Bundle, seen: list[Any], held_bytes: int = 2**20) -> str:
    """Why a version is not served; what its engine would be made of goes into a list."""

    def load(name: str, model: Model, batch_s: Mapping[int, float]) -> Any:
        assert isinstance(model, HeldModel)
        path.write_bytes(b"another")
        seen.append((model, model.content, dict(model.external)))
        raise EngineError("made nothing")

    reasons: list[str] = []
    repository: Any = None
    preparer = Preparer(
        load, repository, lambda *_: None, lambda _, reason: reasons.append(reason), held_bytes
    )
    preparer.prepare(bundle, path, {})
    preparer.close(WAIT_S)
    (reason,) = reasons
    return reason


def test_bytes_that_are_loaded_are_those_that_were_verified(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external())
    content, weights = path.read_bytes(), b"\1" * 12
    path.with_name("weights.bin").write_bytes(weights)
    seen: list[Any] = []
    bundle = Bundle("made", 1, Digests().read(path).digest)
    assert failure_of(path, bundle, seen) == "made nothing"
    ((held, loaded, external),) = seen
    assert (loaded, external) == (content, {"weights.bin": weights})
    # An engine keeps what it was made of.
    assert (held.content, held.external) == (b"", {})


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin"])
def test_file_that_was_changed_after_it_was_verified_is_not_loaded(
    tmp_path: Path, name: str
) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external())
    path.with_name("weights.bin").write_bytes(b"\1" * 12)
    bundle = Bundle("made", 1, Digests().read(path).digest)
    content = path.with_name(name).read_bytes()
    path.with_name(name).write_bytes(content[:-1] + b"\2")
    seen: list[Any] = []
    reason = failure_of(path, bundle, seen)
    assert seen == []
    assert "changed while it was loaded" in reason or "not an ONNX file" in reason


def test_file_that_has_grown_is_not_read(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.two_inputs())
    bundle = Bundle("made", 1, Digests().read(path).digest)
    with path.open("r+b") as file:
        file.truncate(2**40)
    seen: list[Any] = []
    assert f"{path}: expected at most 1048576 bytes" in failure_of(path, bundle, seen)
    assert seen == []

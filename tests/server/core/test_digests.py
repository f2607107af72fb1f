"""The digest of a version covers its model file and its external data."""

import hashlib
from pathlib import Path

import numpy as np

from convserve_server.core.digests import Digests
from tests import onnx_models


def test_digest_of_a_single_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.two_inputs())
    content = Digests().read(path)
    assert content.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content.size == path.stat().st_size


def test_digest_changes_with_external_data_and_its_size_counts(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external())
    weights = path.with_name("weights.bin")
    digests = Digests()
    missing = digests.read(path)
    np.array([1, 2, 3], np.float32).tofile(weights)
    first = digests.read(path)
    assert first.size == path.stat().st_size + 12
    assert digests.read(path) is first
    np.array([1, 2, 4], np.float32).tofile(weights)
    second = digests.read(path)
    assert len({missing.digest, first.digest, second.digest}) == 3
    np.array([1, 2, 3], np.float32).tofile(weights)
    assert digests.read(path) == Digests().read(path) == first


def test_file_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external("../weights.bin"))
    outside = path.parent.parent / "weights.bin"
    outside.write_bytes(b"one")
    first = Digests().read(path)
    outside.write_bytes(b"another")
    assert Digests().read(path) == first


def test_file_that_is_not_onnx_has_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (b"", b"location", b"\xff" * 100):
        path.write_bytes(content)
        assert Digests().read(path).digest == hashlib.sha256(content).hexdigest()

"""The metadata of an ONNX file, read without ONNX, beside what ONNX reads."""

import random
import tempfile
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convserve_bundle.errors import BundleError
from convserve_bundle.onnx_metadata import read_metadata
from tests.bundles import model, photo_model


def written(folder: Path, content: bytes) -> Path:
    file = folder / "model.onnx"
    file.write_bytes(content)
    return file


def outcome(file: Path) -> dict[str, str] | str:
    """Returns the metadata, or what the file is refused with before a colon."""
    try:
        return read_metadata(file)
    except BundleError as error:
        return str(error).partition(":")[0]


@pytest.mark.parametrize("metadata", [{}, {"a": "b"}, {"": "", "name": "\u00e4" * 5000, "x": "y"}])
def test_metadata_is_what_onnx_reads(metadata: dict[str, str], tmp_path: Path) -> None:
    for net in (model(metadata), photo_model(metadata)):
        assert read_metadata(written(tmp_path, net.SerializeToString())) == metadata


def test_fields_in_another_order_and_unknown_ones_are_no_matter(tmp_path: Path) -> None:
    net = model({"a": "b"}).SerializeToString()
    only = onnx.ModelProto()
    only.metadata_props.add(key="c", value="d")
    unknown = b"\xf8\x3f\x05" + b"\xfd\x3f1234" + b"\xf9\x3f12345678" + b"\xfa\x3f\x03abc"
    file = written(tmp_path, only.SerializeToString() + unknown + net)
    assert read_metadata(file) == {"a": "b", "c": "d"}


def test_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    net = model({"a": "b"})
    net.metadata_props.add(key="a", value="c")
    with pytest.raises(BundleError, match="^metadata: expected each key once, got 'a' twice$"):
        read_metadata(written(tmp_path, net.SerializeToString()))


def test_entry_that_is_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    size = 2**24 + 1
    file = written(tmp_path, b"\x3a\x01\x00" + b"\x72\x81\x80\x80\x08")
    with file.open("ab") as more:
        more.truncate(more.tell() + size)
    with pytest.raises(
        BundleError, match=f"^metadata: expected at most {2**24} bytes, got {size}$"
    ):
        read_metadata(file)


def test_fields_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not an ONNX file: expected at most"):
        read_metadata(written(tmp_path, b"\x08\x01" * 20_000))


@pytest.mark.parametrize("seed", range(20))
def test_file_that_is_cut_is_refused_or_lacks_what_was_cut(seed: int, tmp_path: Path) -> None:
    whole = model({"a": "b" * 100}).SerializeToString()
    cut = whole[: random.Random(seed).randrange(len(whole))]
    assert outcome(written(tmp_path, cut)) in ({}, "not an ONNX file")


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert "\n" not in outcome(written(Path(folder), content))


def test_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "none")

"""Weights in files beside an ONNX file: which it states, and which of them may be read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convserve_bundle import external_data
from convserve_bundle.errors import BundleError
from tests import onnx_models


def tensor(location: str) -> TensorProto:
    made = TensorProto(name=location, data_type=TensorProto.FLOAT, dims=[3])
    made.data_location = TensorProto.EXTERNAL
    # In any order, and among other keys.
    for key, value in (("offset", "0"), ("location", location), ("checksum", "location")):
        made.external_data.add(key=key, value=value)
    return made


def everywhere() -> onnx.ModelProto:
    """External data wherever a tensor can be: its location is the name of that."""
    branch = helper.make_graph([], "branch", [], [], [tensor("of-subgraph")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch)
    node.attribute.add(name="t", type=onnx.AttributeProto.TENSOR, t=tensor("attribute"))
    many = node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS)
    many.tensors.extend([tensor("of-several"), tensor("of-several-too")])
    graphs = node.attribute.add(name="graphs", type=onnx.AttributeProto.GRAPHS)
    graphs.graphs.extend([helper.make_graph([], "g", [], [], [tensor("of-graphs")])])
    sparse = node.attribute.add(name="sparse", type=onnx.AttributeProto.SPARSE_TENSOR)
    sparse.sparse_tensor.values.CopyFrom(tensor("sparse-attribute"))
    graph = helper.make_graph([node], "all", [], [], [tensor("initializer")])
    graph.sparse_initializer.add().indices.CopyFrom(tensor("sparse-indices"))
    made = helper.make_model(graph)
    function = made.functions.add(name="f", domain="d")
    function.node.add(op_type="Constant").attribute.add(name="value", t=tensor("of-function"))
    function.attribute_proto.add(name="default", t=tensor("of-default"))
    return made


def test_every_tensor_of_a_model_is_looked_at(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "all", everywhere())
    assert external_data.locations(path) == sorted(
        [
            "of-subgraph", "attribute", "of-several", "of-several-too", "of-graphs",
            "sparse-attribute", "initializer", "sparse-indices", "of-function", "of-default",
        ]
    )  # fmt: skip


def test_word_in_other_texts_is_no_location(tmp_path: Path) -> None:
    made = onnx_models.two_inputs()
    made.doc_string = made.graph.doc_string = "location"
    made.graph.node[0].name = "location"
    assert external_data.locations(onnx_models.write(tmp_path, "made", made)) == []


def test_word_is_found_wherever_the_file_is_cut_to_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = onnx_models.write(tmp_path, "all", everywhere())
    whole = external_data.locations(path)
    for chunk in range(8, 24):
        monkeypatch.setattr(external_data, "_CHUNK", chunk)
        assert external_data.locations(path) == whole


@pytest.mark.parametrize("cut", [1, 5, 9, 20, 60])
def test_file_that_is_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "all", onnx_models.external())
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BundleError):
        external_data.locations(path)


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    content = helper.make_graph([], "deep", [], [], [tensor("w")]).SerializeToString()
    for _ in range(60):
        # Of AttributeProto g = 6, of NodeProto attribute = 5, of GraphProto node = 1.
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            content = tag + _varint(len(content)) + content
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x3a" + _varint(len(content)) + content)
    with pytest.raises(BundleError, match="within each other"):
        external_data.locations(path)


def _varint(number: int) -> bytes:
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


# Which files may be read


def outside(folder: Path) -> str:
    (folder.parent / "w.bin").write_bytes(b"weights")
    return "../w.bin"


def absolute(folder: Path) -> str:
    path = folder / "w.bin"
    path.write_bytes(b"weights")
    return str(path)


def link_that_leaves(folder: Path) -> str:
    outside(folder)
    (folder / "link.bin").symlink_to("../w.bin")
    return "link.bin"


def folder_that_leaves(folder: Path) -> str:
    outside(folder)
    (folder / "up").symlink_to("..")
    return "up/w.bin"


def way_back(folder: Path) -> str:
    (folder / "w.bin").write_bytes(b"weights")
    return f"../{folder.name}/w.bin"


def endless_link(folder: Path) -> str:
    (folder / "link.bin").symlink_to("link.bin")
    return "link.bin"


def a_folder(folder: Path) -> str:
    (folder / "weights").mkdir()
    return "weights"


@pytest.mark.parametrize(
    "location_in",
    [
        outside, absolute, link_that_leaves, folder_that_leaves, way_back, endless_link, a_folder,
        lambda _: "missing.bin", lambda _: "", lambda _: ".", lambda _: "w\0.bin",
        lambda _: "x" * 5000,
    ],
)  # fmt: skip
def test_other_files_than_those_of_the_folder_are_refused(
    location_in: Callable[[Path], str], tmp_path: Path
) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external())
    location = location_in(path.parent)
    path.write_bytes(onnx_models.external(location).SerializeToString())
    with pytest.raises(BundleError, match=r"^external_data: expected a file in the v") as refused:
        external_data.check(path)
    assert len(str(refused.value)) < 400
    assert repr(location[:50])[:-1] in str(refused.value)


def test_files_of_the_folder_may_be_read(tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path, "made", onnx_models.external("parts/w.bin"))
    (path.parent / "parts").mkdir()
    np.zeros(3, np.float32).tofile(path.parent / "parts" / "w.bin")
    external_data.check(path)
    # As volumes of Kubernetes have their files: links to another name in the same folder.
    (path.parent / "link.bin").symlink_to("parts/w.bin")
    path.write_bytes(onnx_models.external("link.bin").SerializeToString())
    external_data.check(path)
    # The folder itself may be anywhere.
    (tmp_path / "other").symlink_to(path.parent)
    external_data.check(tmp_path / "other" / "model.onnx")

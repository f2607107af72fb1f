"""What an ONNX file says of its graph, read without the package onnx; weights are skipped.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, by the numbers of its fields.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from convserve_bundle.errors import BundleError
from convserve_bundle.wire_format import (
    BYTES,
    NO_ONNX,
    VARINT,
    numbered_fields,
    varint,
)

#: Graphs within nodes of graphs, at the most. Nets have three; protobuf itself reads some thirty.
MOST_DEPTH = 16
#: Nodes of a file at the most.
MOST_NODES = 500_000
#: Fields of one message at the most: an ensemble of trees is one node with millions of numbers.
_MOST_FIELDS = 10_000_000
#: Bytes of a name, and values of a constant that are read.
_MOST_NAME, _MOST_VALUES = 4096, 64

FLOAT, INT32, INT64, STRING = 1, 6, 7, 8
#: How struct names the elements of constants that are read, and their bytes.
_ELEMENTS = {FLOAT: ("f", 4), INT32: ("i", 4), INT64: ("q", 8)}
#: Fields of TensorProto with elements, and the least bytes of each.
_TYPED = {4: 4, 5: 1, 7: 1, 10: 8, 11: 1}


@dataclass
class Tensor:
    """A tensor of a file.

    Attributes:
        name: Of an initializer.
        dims: Its sizes.
        type: Of its elements, as TensorProto.DataType.
        raw: Bytes of raw_data; None if it has none.
        typed: Elements in other fields, at the most.
        external: Location of external data; empty if it has none.
        values: Its elements, if they are few numbers.
    """

    name: str = ""
    dims: list[int] = field(default_factory=list)
    type: int = 0
    raw: int | None = None
    typed: int = 0
    external: str = ""
    values: tuple[float, ...] | None = None


@dataclass
class Node:
    """A node of a graph or of a function.

    Attributes:
        op: Its operator.
        domain: Of that; empty for ONNX's own.
        overload: Of a function.
        inputs: Names of the values that it uses.
        outputs: Names of what it gives.
        numbers: Attributes that are integers, by name.
        tensors: Attributes that are tensors, by name.
    """

    op: str = ""
    domain: str = ""
    overload: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Body:
    """The graph, or a function, with all graphs within its nodes.

    Attributes:
        name: Domain, name and overload of a function.
        nodes: In their order.
        tensors: All of them, those of nodes too.
        sparse: Sizes of sparse tensors.
        inputs: Sizes of the graph's inputs by name, those that are open as 1, and the type.
    """

    name: tuple[str, str, str] = ("", "", "")
    nodes: list[Node] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    sparse: list[list[int]] = field(default_factory=list)
    inputs: dict[str, tuple[list[int], int]] = field(default_factory=dict)


def read_bodies(file: BinaryIO, size: int) -> list[Body]:
    """Returns the graph and the functions of an open ONNX file of so many bytes, the graph first.

    Raises:
        BundleError: It is not a valid ONNX file, or has too many nodes, or too deep ones.
        OSError: It cannot be read.
    """
    return _Reader(file).model(size)


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._nodes = 0

    def model(self, size: int) -> list[Body]:
        graph, functions = Body(), []
        for number, _, end in self._messages(size):
            if number == 7:
                self._graph(end, graph, 0)
            elif number == 25:
                functions.append(self._function(end))
        return [graph, *functions]

    def _fields(self, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields number, kind, end and value of the fields of a message; skips what is not read."""
        for number, kind, length, value in numbered_fields(self._file, end, _MOST_FIELDS):
            until = self._file.tell() + length
            yield number, kind, until, value
            if self._file.tell() != until:
                self._file.seek(until)

    def _messages(self, end: int) -> Iterator[tuple[int, int, int]]:
        for number, kind, until, _ in self._fields(end):
            if kind == BYTES:
                yield number, kind, until

    def _text(self, end: int) -> str:
        length = end - self._file.tell()
        if length > _MOST_NAME:
            raise BundleError(f"{NO_ONNX}: expected names of at most {_MOST_NAME} bytes")
        # A name that is not text differs from all others all the same.
        return self._file.read(length).decode(errors="backslashreplace")

    def _graph(self, end: int, body: Body, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise BundleError(f"graph: expected at most {MOST_DEPTH} graphs within each other")
        for number, _, until in self._messages(end):
            if number == 1:
                self._node(until, body, depth)
            elif number == 5:
                body.tensors.append(self._tensor(until))
            elif number == 11 and not depth:
                self._input(until, body)
            elif number == 15:
                self._sparse(until, body)

    def _function(self, end: int) -> Body:
        body, names = Body(), {1: "", 10: "", 13: ""}
        for number, _, until in self._messages(end):
            if number in names:
                names[number] = self._text(until)
            elif number == 7:
                self._node(until, body, 0)
            elif number == 11:
                self._attribute(until, Node(), body, 0)
        body.name = (names[10], names[1], names[13])
        return body

    def _node(self, end: int, body: Body, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise BundleError(f"graph: expected at most {MOST_NODES} nodes, got more")
        node = Node()
        for number, _, until in self._messages(end):
            if number == 1:
                node.inputs.append(self._text(until))
            elif number == 2:
                node.outputs.append(self._text(until))
            elif number == 4:
                node.op = self._text(until)
            elif number == 5:
                self._attribute(until, node, body, depth)
            elif number == 7:
                node.domain = self._text(until)
            elif number == 8:
                node.overload = self._text(until)
        body.nodes.append(node)

    def _attribute(self, end: int, node: Node, body: Body, depth: int) -> None:
        name = ""
        numbers: list[int] = []
        tensors: list[Tensor] = []
        for number, kind, until, value in self._fields(end):
            if number in (3, 8) and kind == VARINT:
                if len(numbers) < _MOST_VALUES:
                    numbers.append(_signed(value))
            elif kind != BYTES:
                continue
            elif number == 1:
                name = self._text(until)
            elif number == 8:
                numbers += self._packed(until)
            elif number in (5, 10):
                tensors.append(self._tensor(until))
            elif number in (6, 11):
                self._graph(until, body, depth + 1)
            elif number in (22, 23):
                self._sparse(until, body)
        body.tensors += tensors
        if numbers:
            node.numbers[name] = numbers
        if len(tensors) == 1:
            node.tensors[name] = tensors[0]

    def _packed(self, end: int) -> list[int]:
        """Returns the first numbers of a packed field."""
        found: list[int] = []
        while self._file.tell() < end and len(found) < _MOST_VALUES:
            found.append(_signed(varint(self._file)))
        return found

    def _tensor(self, end: int) -> Tensor:
        tensor, raw, typed = Tensor(), b"", b""
        for number, kind, until, value in self._fields(end):
            length = until - self._file.tell()
            if number == 1:
                tensor.dims += self._packed(until) if kind == BYTES else [_signed(value)]
            elif number == 2 and kind == VARINT:
                tensor.type = value
            elif number == 8 and kind == BYTES:
                tensor.name = self._text(until)
            elif number == 9 and kind == BYTES:
                tensor.raw = length
                raw = self._file.read(length) if length <= 8 * _MOST_VALUES else b""
            elif number == 13 and kind == BYTES:
                tensor.external = self._location(until) or tensor.external
            elif number == 6 and kind == BYTES:
                tensor.typed += 1
            elif number in _TYPED:
                tensor.typed += length // _TYPED[number] if kind == BYTES else 1
                if kind == BYTES and length <= 10 * _MOST_VALUES:
                    typed += self._file.read(length)
        _read_values(tensor, raw, typed)
        return tensor

    def _location(self, end: int) -> str:
        """Returns the location that an entry of external data states; empty if it has another."""
        texts = {1: "", 2: ""}
        for number, _, until in self._messages(end):
            if number in texts:
                texts[number] = self._text(until)
        return texts[2] if texts[1] == "location" else ""

    def _sparse(self, end: int, body: Body) -> None:
        dims: list[int] = []
        for number, kind, until, value in self._fields(end):
            if number == 3:
                dims += self._packed(until) if kind == BYTES else [_signed(value)]
            elif number in (1, 2) and kind == BYTES:
                body.tensors.append(self._tensor(until))
        body.sparse.append(dims)

    def _input(self, end: int, body: Body) -> None:
        name, type_ = "", 0
        dims: list[int] = []
        for number, _, until in self._messages(end):
            if number == 1:
                name = self._text(until)
            elif number == 2:
                dims, type_ = self._type(until)
        body.inputs[name] = dims, type_

    def _type(self, end: int) -> tuple[list[int], int]:
        """Returns the sizes and the element type of a TypeProto."""
        type_ = 0
        dims: list[int] = []
        for number, _, until in self._messages(end):
            if number != 1:
                continue
            for inner, kind, inner_end, value in self._fields(until):
                if inner == 1 and kind == VARINT:
                    type_ = value
                elif inner == 2 and kind == BYTES:
                    dims += [self._size(stop) for _, _, stop in self._messages(inner_end)]
        return dims, type_

    def _size(self, end: int) -> int:
        size = 1
        for number, kind, _, value in self._fields(end):
            if number == 1 and kind == VARINT:
                size = _signed(value)
        return size


def _read_values(tensor: Tensor, raw: bytes, typed: bytes) -> None:
    """Keeps the elements of a tensor, if they are few numbers."""
    if tensor.type not in _ELEMENTS:
        return
    letter, size = _ELEMENTS[tensor.type]
    if raw and len(raw) % size == 0:
        tensor.values = struct.unpack(f"<{len(raw) // size}{letter}", raw)
    elif typed and tensor.type == FLOAT and len(typed) % size == 0:
        tensor.values = struct.unpack(f"<{len(typed) // size}f", typed)
    elif typed and tensor.type != FLOAT:
        tensor.values = tuple(_varints(typed))


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield _signed(value)
            value = shift = 0


def _signed(value: int) -> int:
    """Returns an int64 of its varint."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value

"""What is refused in an ONNX file before ONNX Runtime reads it: unknown operators, and size bombs.

A small file can ask for any amount of memory: by tensors that state sizes without data, by nodes
that make large tensors of a few numbers, by functions that call each other. As far as the file
states sizes itself, these are added up here; what depends on requests is bounded by their limits,
and a worker that ends or hangs while it loads a file refuses it for all.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from convserve_bundle import external_data, held_model
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import HeldModel, Model
from convserve_bundle.onnx_graph import MOST_NODES, STRING, Body, Node, Tensor, read_bodies

#: Domains of operators that ONNX Runtime has built in. The last is of files that it has optimized.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")

#: Bytes that the nodes of a file may make of its own constants, together.
MOST_MADE = 2**31
#: Bytes of one row, or request, of an input: a sample of it is computed when a model is loaded.
MOST_INPUT = 2**28
#: Tensors may share external data, but not without end: bytes that they may claim of each of it.
_MOST_SHARED = 4
#: Functions that call each other, at the most.
_MOST_CALLS = 64
_MOST_SHOWN = 80

#: Bits of an element by its type; a type that is not here is of a newer ONNX.
_BITS = {
    **{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64},
    **{14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8},
    **{25: 2, 26: 2},
}
#: The elements of what has many in one byte, at the most.
_ELEMENTS_OF_BYTE = 4

#: Operators whose output has as many elements as their first input.
_AS_MANY = {
    *("Abs", "Cast", "Clip", "Dropout", "Exp", "Flatten", "Identity", "Neg", "Not", "Relu"),
    *("Reshape", "Sigmoid", "Sqrt", "Squeeze", "Tanh", "Transpose", "Unsqueeze"),
}


def check(model: Model) -> None:
    """Refuses a model with unknown operators, or one that asks for far more than it holds.

    Raises:
        BundleError: It does, or is not a valid ONNX file.
        OSError: It cannot be read.
    """
    with held_model.opened(model) as file:
        bodies = read_bodies(file, held_model.size_of(file))
    _check_functions(bodies)
    _check_tensors(model, [tensor for body in bodies for tensor in body.tensors])
    for name, (dims, type_) in bodies[0].inputs.items():
        # Sizes below 0 are those that are open.
        size = _bytes([max(1, one) for one in dims], type_)
        if size > MOST_INPUT:
            raise BundleError(
                f"inputs.{_shown(name)}: expected at most {MOST_INPUT} bytes a row, got {size}"
            )
    made = sum(map(_made, bodies))
    if made > MOST_MADE:
        raise BundleError(
            f"graph: expected nodes that make at most {MOST_MADE} bytes of its constants, got "
            f"{_number(made)}"
        )


def _check_functions(bodies: Sequence[Body]) -> None:
    """Refuses operators that are not built in, and functions that call too much.

    Raises:
        BundleError: There are such.
    """
    functions: dict[tuple[str, str, str], Body] = {}
    for body in bodies[1:]:
        if _key(*body.name) in functions:
            raise BundleError(f"functions: expected each once, got {_named(*body.name)} twice")
        functions[_key(*body.name)] = body
    for body in bodies:
        for node in body.nodes:
            known = node.domain in DOMAINS or _key_of(node) in functions
            if not known:
                raise BundleError(
                    "graph: expected operators that ONNX Runtime has built in, got "
                    f"{_named(node.domain, node.op)}"
                )
    sizes: dict[tuple[str, str, str], int] = {}

    def size_of(body: Body, callers: tuple[tuple[str, str, str], ...]) -> int:
        calls = Counter(key for node in body.nodes if (key := _key_of(node)) in functions)
        size = len(body.nodes)
        for key, count in calls.items():
            if key in callers or len(callers) >= _MOST_CALLS:
                raise BundleError(
                    f"functions: expected none that calls itself, and at most {_MOST_CALLS} that "
                    f"call each other, got {_named(*key)}"
                )
            if key not in sizes:
                sizes[key] = size_of(functions[key], (*callers, key))
            size += count * sizes[key]
        return size

    for key, body in ((None, bodies[0]), *functions.items()):
        size = size_of(body, (key,) if key else ())
        if size > MOST_NODES:
            raise BundleError(
                f"functions: expected at most {MOST_NODES} nodes with all that they call, got "
                f"{_number(size)}"
            )


def _check_tensors(model: Model, tensors: Iterable[Tensor]) -> None:
    """Refuses tensors that have less data than their sizes say.

    Raises:
        BundleError: There is one.
        OSError: A file of external data cannot be read.
    """
    claimed: Counter[str] = Counter()
    for tensor in tensors:
        name = f"tensor {_shown(tensor.name)}" if tensor.name else "a tensor"
        if any(size < 0 for size in tensor.dims):
            raise BundleError(f"{name}: expected sizes of 0 or more, got {tensor.dims[:8]}")
        elements = math.prod(tensor.dims)
        if tensor.external:
            claimed[tensor.external] += _bytes(tensor.dims, tensor.type)
        elif tensor.raw is not None and tensor.type in _BITS:
            size = _bytes(tensor.dims, tensor.type)
            if tensor.raw != size:
                raise BundleError(
                    f"{name}: expected {_number(size)} bytes of data by its sizes, got {tensor.raw}"
                )
        else:
            one = 1 if tensor.type == STRING else _ELEMENTS_OF_BYTE
            there = one * (tensor.typed or tensor.raw or 0)
            if elements > there:
                raise BundleError(
                    f"{name}: expected data of {_number(elements)} elements by its sizes, got "
                    f"{tensor.typed or tensor.raw or 'none'}"
                )
    for location, size in claimed.items():
        there = _external_bytes(model, location)
        if size > _MOST_SHARED * there:
            raise BundleError(
                f"external_data: expected tensors of at most {_MOST_SHARED} times the {there} "
                f"bytes of {_shown(location)}, got {_number(size)}"
            )


def _external_bytes(model: Model, location: str) -> int:
    if isinstance(model, HeldModel):
        return len(model.external.get(location, b""))
    return external_data.file_of(Path(model), location).stat().st_size


def _made(body: Body) -> int:
    """Returns the bytes that nodes make of constants, at least, as far as the file states sizes."""
    constants = _Constants(body)
    made = 0
    for dims in body.sparse:
        made += math.prod(max(0, size) for size in dims)
    for node in body.nodes:
        elements, bits = constants.outcome(node)
        made += elements * bits // 8
        if elements:
            for output in node.outputs:
                constants.elements[output] = max(elements, constants.elements.get(output, 0))
    return made


class _Constants:
    """What is known of the constants of a body, by their names.

    A name that is used again, within a graph of a node, has the largest of its meanings.
    """

    def __init__(self, body: Body) -> None:
        self.elements: dict[str, int] = {}
        self._values: dict[str, list[tuple[float, ...]]] = {}
        for tensor in body.tensors:
            self._add(tensor.name, tensor)
        for node in body.nodes:
            if node.op == "Constant":
                for tensor in node.tensors.values():
                    self._add(node.outputs[0] if node.outputs else "", tensor)
                for numbers in node.numbers.values():
                    self._note(node.outputs[0] if node.outputs else "", tuple(numbers))

    def _add(self, name: str, tensor: Tensor) -> None:
        self.elements[name] = max(self.elements.get(name, 0), math.prod(tensor.dims))
        if tensor.values is not None:
            self._note(name, tensor.values)

    def _note(self, name: str, values: tuple[float, ...]) -> None:
        self._values.setdefault(name, []).append(values)

    def outcome(self, node: Node) -> tuple[int, int]:
        """Returns the elements that a node makes, at least, and their bits; 0 if unknown."""
        make = _MAKERS.get(node.op) if node.domain in ("", "ai.onnx") else None
        if make is not None:
            bits = 8
            if node.op == "ConstantOfShape":
                value = node.tensors.get("value")
                bits = _BITS.get(value.type, 8) if value else 32
            return make(self, node), bits
        if node.op in _AS_MANY and node.inputs:
            # It may be made in place.
            return self.elements.get(node.inputs[0], 0), 0
        return 0, 0

    def first(self, node: Node) -> int:
        """Returns the elements of the first input; 1 where that is unknown."""
        return self.elements.get(node.inputs[0], 1) if node.inputs else 1

    def most(
        self, node: Node, index: int, count: Callable[[Sequence[float]], float], other: int = 0
    ) -> int:
        """Returns the most that the values of an input come to; another number if they are unknown.

        Args:
            node: That has the input.
            index: Of the input.
            count: Returns what values come to.
            other: Where there are none.
        """
        name = node.inputs[index] if index < len(node.inputs) else ""
        found = [count(values) for values in self._values.get(name, ())] if name else []
        return max((int(one) for one in found if math.isfinite(one)), default=other)


def _product(values: Sequence[float]) -> float:
    return math.prod(max(0, one) for one in values)


def _padded(values: Sequence[float]) -> float:
    """Returns the least elements of what was padded, by the pads at both ends of each axis."""
    half = len(values) // 2
    return math.prod(max(1, 1 + a + b) for a, b in zip(values[:half], values[half:], strict=False))


def _range(constants: _Constants, node: Node) -> int:
    start, limit, delta = (
        constants.most(node, index, lambda values: values[0] if values else 0, default)
        for index, default in ((0, 0), (1, 0), (2, 1))
    )
    return max(0, (limit - start) // delta) if delta else 0


#: The elements that operators make, by their constants.
_MAKERS: dict[str, Callable[[_Constants, Node], int]] = {
    "ConstantOfShape": lambda known, node: known.most(node, 0, _product),
    "Expand": lambda known, node: known.most(node, 1, _product),
    "Tile": lambda known, node: known.first(node) * known.most(node, 1, _product, 1),
    "Range": _range,
    "OneHot": lambda known, node: known.first(node) * known.most(node, 1, _product, 1),
    "Pad": lambda known, node: known.most(node, 1, _padded),
    "Resize": lambda known, node: max(
        known.most(node, 3, _product), known.first(node) * known.most(node, 2, _product)
    ),
    "Upsample": lambda known, node: known.first(node) * known.most(node, 1, _product),
    "Concat": lambda known, node: sum(known.elements.get(name, 0) for name in node.inputs),
    "RandomNormal": lambda known, node: int(_product(node.numbers.get("shape", [0]))),
    "RandomUniform": lambda known, node: int(_product(node.numbers.get("shape", [0]))),
}


def _bytes(dims: Sequence[int], type_: int) -> int:
    return -(-math.prod(dims) * _BITS.get(type_, 8) // 8)


def _key(domain: str, name: str, overload: str = "") -> tuple[str, str, str]:
    return ("" if domain == "ai.onnx" else domain, name, overload)


def _key_of(node: Node) -> tuple[str, str, str]:
    return _key(node.domain, node.op, node.overload)


def _named(domain: str, name: str, overload: str = "") -> str:
    """Returns an operator for a message."""
    parts = (domain or "ai.onnx", name, *filter(None, [overload]))
    return "::".join(map(_shown, parts))


def _number(value: int) -> str:
    """Returns a number for a message; a very large one by its magnitude."""
    return str(value) if value < 10**18 else f"about 2**{value.bit_length() - 1}"


def _shown(name: str) -> str:
    shown = name if name.isprintable() else ascii(name)
    return f"{shown[:_MOST_SHOWN]}…" if len(shown) > _MOST_SHOWN else shown

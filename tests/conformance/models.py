"""Models of a server under test, and questions whose right answers are known."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.conformance.suite import NotApplicable, Violation
from tests.conformance.tensors import DATATYPES, Array, edge_values


@dataclass(frozen=True)
class Tensor:
    """An input or an output, as metadata describe it.

    Args:
        name: its name.
        datatype: of its elements.
        shape: sizes; -1 for one that may vary.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """A model, as metadata describe it."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def adds(self) -> bool:
        """Whether it is the model `simple` of the public examples: a sum and a difference."""
        return (
            {(each.name, each.datatype, each.shape[-1:]) for each in self.inputs}
            == {("INPUT0", "INT32", (16,)), ("INPUT1", "INT32", (16,))}
            and {(each.name, each.datatype) for each in self.outputs}
            == {("OUTPUT0", "INT32"), ("OUTPUT1", "INT32")}
            and all(each.shape == (-1, 16) for each in self.inputs)
        )  # fmt: skip

    @property
    def repeats(self) -> bool:
        """Whether its answer is what it is given."""
        return (
            self.name.startswith("identity")
            and len(self.inputs) == len(self.outputs) == 1
            and self.inputs[0].datatype == self.outputs[0].datatype
        )


@dataclass(frozen=True)
class Question:
    """Tensors for a model, and the right answer.

    Args:
        model: name of the model.
        inputs: tensors by the names of inputs.
        datatypes: of each input and output.
        answer: right tensors by the names of outputs; empty if only their shapes are known.
    """

    model: str
    inputs: Mapping[str, Array]
    datatypes: Mapping[str, str]
    answer: Mapping[str, Array] = field(default_factory=dict)


def sum_question(model: Model, rows: int = 1, first: int = 0) -> Question:
    """A question to a model that adds, which no two values of `first` share."""
    one = np.arange(first, first + 16 * rows, dtype=np.int32).reshape(rows, 16)
    other = (np.arange(16 * rows, dtype=np.int32).reshape(rows, 16) % 7 + 1).astype(np.int32)
    names = ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")
    return Question(
        model.name,
        {"INPUT0": one, "INPUT1": other},
        dict.fromkeys(names, "INT32"),
        {"OUTPUT0": one + other, "OUTPUT1": one - other},
    )


def extreme_question(model: Model) -> Question:
    """A question to a model that adds, with the largest and smallest numbers."""
    numbers = np.iinfo(np.int32)
    one = np.array([[numbers.min, numbers.max] * 8], np.int32)
    return Question(
        model.name,
        {"INPUT0": one, "INPUT1": np.zeros_like(one)},
        dict.fromkeys(("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1"), "INT32"),
        {"OUTPUT0": one, "OUTPUT1": one},
    )


def identity_question(model: Model, values: Array | None = None) -> Question:
    """A question to a model that repeats, with the extreme values of its datatype or others."""
    (given,), (answered,) = model.inputs, model.outputs
    if values is None:
        values = edge_values(given.datatype, some_shape(given))
    types = {given.name: given.datatype, answered.name: answered.datatype}
    return Question(model.name, {given.name: values}, types, {answered.name: values})


def zero_question(model: Model) -> Question:
    """A question of zeros to any model; the right answer is not known."""
    inputs = {
        each.name: np.zeros([1 if size < 0 else size for size in each.shape],
                            DATATYPES[each.datatype].numpy)
        for each in model.inputs
    }  # fmt: skip
    types = {each.name: each.datatype for each in (*model.inputs, *model.outputs)}
    return Question(model.name, inputs, types)


def some_shape(tensor: Tensor) -> tuple[int, ...]:
    """A shape that a tensor may have."""
    return tuple(3 if size < 0 else size for size in tensor.shape)


def adder(models: Mapping[str, Model]) -> Model:
    """The model that adds.

    Raises:
        NotApplicable: if there is none.
    """
    for each in models.values():
        if each.adds:
            return each
    raise NotApplicable("no model with the inputs and outputs of `simple`")


def repeater(models: Mapping[str, Model], datatype: str) -> Model:
    """The model that repeats tensors of a datatype.

    Raises:
        NotApplicable: if there is none.
    """
    for each in models.values():
        if each.repeats and each.inputs[0].datatype == datatype:
            return each
    raise NotApplicable(f"no model that repeats {datatype}")


def check_metadata(model: Model, asked: str) -> None:
    """Raises Violation unless the metadata of a model are possible."""
    if model.name != asked:
        raise Violation(f"name: expected {asked!r}, got {model.name!r}")
    for kind, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if not tensors:
            raise Violation(f"{kind}: expected one or more, got none")
        names = [each.name for each in tensors]
        if "" in names or len(set(names)) < len(names):
            raise Violation(f"{kind}: expected names that differ, got {names}")
        for each in tensors:
            if each.datatype not in DATATYPES:
                raise Violation(
                    f"{kind}.{each.name}.datatype: expected one of the protocol, "
                    f"got {each.datatype!r}"
                )
            if any(size < -1 for size in each.shape):
                raise Violation(
                    f"{kind}.{each.name}.shape: expected -1 or sizes, got {list(each.shape)}"
                )

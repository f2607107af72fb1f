"""What a model needs and gives, as its file says; without NumPy."""

from dataclasses import dataclass

#: A size that may differ from request to request.
OPEN = -1


@dataclass(frozen=True)
class TensorSpec:
    """An input or an output of a model.

    Attributes:
        name: of the input or output.
        datatype: of its elements; of Open Inference; see tensors.py.
        shape: its sizes; OPEN for those that may vary.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a model needs and gives.

    Attributes:
        inputs: at least one, in the order of the file.
        outputs: at least one, in the order of the file.
        batched: whether the first axes of all inputs and outputs are those of a batch, so that
            requests can share one. If not, each request is run by itself.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool

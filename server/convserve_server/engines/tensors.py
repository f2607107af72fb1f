"""Tensors of a model with any inputs and outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Types of elements by the names of Open Inference, with those of NumPy. BYTES are Python's bytes
#: in an array of objects; BF16 has none.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}


class Tensors:
    """Tensors of one request or batch, which may be cut along their common first axis.

    Args:
        arrays: in the order of a signature.
        count: rows: the size of the first axes, or 1 if the model is not batched.
    """

    __slots__ = ("arrays", "count")

    def __init__(self, arrays: tuple[NDArray[Any], ...], count: int) -> None:
        self.arrays = arrays
        self.count = count

    def __len__(self) -> int:
        """Returns the rows."""
        return self.count

    def __getitem__(self, rows: slice) -> "Tensors":
        """Returns some of the rows, without a copy."""
        start, stop, _ = rows.indices(self.count)
        if stop - start == self.count:
            return self
        return Tensors(tuple(array[start:stop] for array in self.arrays), stop - start)

    @classmethod
    def joined(cls, parts: "Sequence[Tensors]") -> "Tensors":
        """Returns the rows of several, one after the other; their other sizes must be equal."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(part.arrays for part in parts), strict=True)
        arrays = tuple(np.concatenate(column) for column in columns)
        return cls(arrays, sum(part.count for part in parts))

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The sizes of each array but the first: what must be equal to join them with others."""
        return tuple(array.shape[1:] for array in self.arrays)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; of BYTES those of the references."""
        return sum(array.nbytes for array in self.arrays)

"""The engine for ONNX files that are not bundles: any number of inputs and outputs, any shapes.

Source: https://onnxruntime.ai/docs/api/python/api_summary.html (NodeArg: name, type, shape).
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from convserve_server.engines.base import NOT_MEASURED, EngineError, InputsRefused
from convserve_server.engines.batch_sizes import BatchSizes, seconds_passed
from convserve_server.engines.cpu import AnySizeEngine
from convserve_server.engines.signatures import OPEN, Signature, TensorSpec
from convserve_server.engines.tensors import DTYPES, Tensors
from convserve_server.host.engine_activity import EngineActivity

log = logging.getLogger(__name__)

#: Types of tensors that can be served: ONNX Runtime's names, and those of Open Inference.
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}

#: Names that a converter makes up for sizes that it does not know; each is new.
#: Source: https://github.com/onnx/tensorflow-onnx/blob/main/tf2onnx/utils.py (make_onnx_shape).
_MADE_UP = "unk__"

#: Rows of a batch at the most where its time cannot be measured, as the sizes of requests vary.
_MAX_UNMEASURED = 32

#: Values that rows are tried on: their seed, their scale, and how far results may differ that are
#: computed together and one by one.
_SEED, _SCALE = 20_260_102, 0.5
#: Integers and booleans of two rows, the first that can be computed: 0 is a bad divisor, and 1 is
#: a bad index into a table of one entry.
_INTEGERS = ((0, 1), (0, 0), (1, 1))
_RELATIVE, _ABSOLUTE = 1e-2, 1e-3

#: What ONNX Runtime raises for values that a node cannot compute.
_OF_VALUES = (ort_errors.InvalidArgument, ort_errors.RuntimeException, ort_errors.Fail)
#: What ONNX Runtime puts before the reason.
_BEFORE_REASON = re.compile(r"^.*(Status Message: |\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : )", re.S)
#: Faults of a device are not those of the values.
_OF_DEVICE = re.compile(r"\b(CUDA|CUBLAS|CUDNN)[ _](failure|error)", re.IGNORECASE)


class _OtherRowsError(Exception):
    """A model whose first axes seemed to be those of a batch gave more rows, or fewer."""


class AnyOnnxEngine(AnySizeEngine[Tensors, Tensors]):
    """Runs a model of any signature; see TensorEngine and AnySizeEngine.

    Args:
        path: of the model file, for messages.
        session: of ONNX Runtime.
        provider: its name.
        sizes: how the largest batch is chosen.
        activity: see AnySizeEngine.
        many_threads: see AnySizeEngine.
        one_thread: see AnySizeEngine.

    Raises:
        EngineError: if its inputs or outputs cannot be served.
    """

    parallel = 1

    def __init__(
        self,
        path: str,
        session: Any,
        provider: str,
        sizes: BatchSizes,
        activity: EngineActivity | None = None,
        many_threads: Callable[[], Any] = lambda: None,
        one_thread: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(session, provider, sizes, activity, many_threads, one_thread)
        self._path = path
        # Initializers that a caller may override are not among the inputs.
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self.signature = Signature(
            _specs("inputs", inputs), _specs("outputs", outputs), _is_batched(inputs, outputs)
        )
        self._inputs = [one.name for one in self.signature.inputs]
        self._outputs = [one.name for one in self.signature.outputs]
        self._samples = self._values(_INTEGERS[0])

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        """See TensorEngine.warm_up."""
        rows = self._try_out()
        if self.signature.batched and rows is not None and not self._are_independent(rows):
            log.info("%s: its rows depend on each other: each request is run by itself", self._path)
            self.signature = dataclasses.replace(self.signature, batched=False)
            self._samples = self._values(_INTEGERS[0])
        if not self.signature.batched:
            self._sizes = dataclasses.replace(self._sizes, max_batch=1, chosen=True)
        if rows is not None and self._is_fixed:
            return super().warm_up(batch_s)
        if not self._sizes.chosen:
            most = min(_MAX_UNMEASURED, self._sizes.max_batch)
            self._sizes = dataclasses.replace(self._sizes, max_batch=most)
        self.max_batch = self._sizes.max_batch
        if rows is not None:
            run_s = seconds_passed(lambda: self._run(self._session, self._sample(1)))
            self._warm_up_threads((1,), run_s)
        return NOT_MEASURED

    @property
    def _is_fixed(self) -> bool:
        """Whether all sizes of inputs are fixed but that of a batch."""
        first = 1 if self.signature.batched else 0
        return all(OPEN not in one.shape[first:] for one in self.signature.inputs)

    def _joined(self, parts: Sequence[Tensors]) -> Tensors:
        return Tensors.joined(parts)

    def _run(self, session: Any, batch: Tensors) -> Tensors:
        """Returns what a session makes of a batch.

        Raises:
            InputsRefused: ONNX Runtime refuses the values.
            _OtherRowsError: there are not as many rows as were given.
        """
        feed = dict(zip(self._inputs, batch.arrays, strict=True))
        try:
            found = session.run(self._outputs, feed)
        except _OF_VALUES as error:
            text = str(error)
            if _OF_DEVICE.search(text):
                raise
            raise InputsRefused(" ".join(_BEFORE_REASON.sub("", text).split())) from error
        arrays = tuple(map(np.asarray, found))
        if self.signature.batched:
            for name, array in zip(self._outputs, arrays, strict=True):
                if array.shape[:1] != (batch.count,):
                    raise _OtherRowsError(
                        f"outputs.{name}: expected {batch.count} rows, got the shape {array.shape}"
                    )
        return Tensors(arrays, batch.count)

    def _sample(self, rows: int) -> Tensors:
        if not self.signature.batched:
            return self._samples
        at = np.arange(rows) % len(self._samples)
        return Tensors(tuple(array[at] for array in self._samples.arrays), rows)

    def _values(self, integers: tuple[int, int]) -> Tensors:
        """Returns two rows, or one request, of small numbers; sizes that are open are 1.

        Args:
            integers: in the first row, or the only request, and in the second one.
        """
        random = np.random.default_rng(_SEED)
        arrays = []
        for one in self.signature.inputs:
            sizes = [1 if size == OPEN else size for size in one.shape]
            if self.signature.batched:
                sizes[0] = 2
            dtype = DTYPES[one.datatype]
            values: NDArray[Any]
            if dtype.kind == "f":
                values = random.normal(0.0, _SCALE, sizes).astype(dtype)
            else:
                values = np.full(sizes, integers[0], dtype)
                if self.signature.batched:
                    values[1] = integers[1]
            arrays.append(values)
        return Tensors(tuple(arrays), 2 if self.signature.batched else 1)

    def _try_out(self) -> list[Tensors] | None:
        """Returns what two rows give one by one, or one request; None if they cannot be run."""
        for integers in _INTEGERS:
            self._samples = self._values(integers)
            parts = [self._samples[at : at + 1] for at in range(len(self._samples))]
            try:
                rows = [self._run(self._session, part) for part in parts]
            except _OtherRowsError:
                return []
            except Exception as error:  # noqa: BLE001 - other values may do
                log.debug("%s: cannot compute a sample: %s", self._path, error)
                continue
            self._complete(rows[0])
            return rows
        return None

    def _are_independent(self, rows: list[Tensors]) -> bool:
        """Returns whether two rows give the same together as one by one."""
        if not rows:
            return False
        try:
            together = self._run(self._session, self._samples)
        except (InputsRefused, _OtherRowsError):
            return False
        alone = Tensors.joined(rows)
        return all(map(_are_close, together.arrays, alone.arrays))

    def _complete(self, found: Tensors) -> None:
        """Notes the rank of outputs of which the file states none."""
        outputs = tuple(
            dataclasses.replace(one, shape=one.shape or (OPEN,) * array.ndim)
            for one, array in zip(self.signature.outputs, found.arrays, strict=True)
        )
        self.signature = dataclasses.replace(self.signature, outputs=outputs)


def _specs(kind: str, values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Returns what a file states of its inputs or outputs.

    Raises:
        EngineError: if there are none, or one of a type that cannot be served.
    """
    if not values:
        raise EngineError(f"{kind}: expected at least one, got none")
    for value in values:
        if value.type not in _DATATYPES:
            raise EngineError(
                f"{kind}.{value.name}: expected a tensor of booleans, integers of 8 to 64 bits or "
                f"floating-point numbers of 16 to 64 bits, got {value.type}"
            )
    return tuple(
        TensorSpec(value.name, _DATATYPES[value.type], tuple(map(_size, value.shape)))
        for value in values
    )


def _size(size: object) -> int:
    """Returns a size that a file states: sizes that are open have names, or none."""
    return size if isinstance(size, int) and size >= 0 else OPEN


def _is_batched(inputs: Iterable[Any], outputs: Iterable[Any]) -> bool:
    """Returns whether all first axes may be one axis of a batch, by what the file states."""
    shapes = [value.shape for value in (*inputs, *outputs)]
    if not all(shape and _size(shape[0]) == OPEN for shape in shapes):
        return False
    names = {shape[0] for shape in shapes if isinstance(shape[0], str)}
    names = {name for name in names if not name.startswith(_MADE_UP)}
    others = {size for shape in shapes for size in shape[1:]}
    return len(names) <= 1 and not names & others


def _are_close(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Returns whether results are equal but for the rounding of another order of sums."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    first, second = one.astype(np.float64), other.astype(np.float64)
    scale = float(np.abs(first[np.isfinite(first)]).max(initial=0.0))
    return bool(np.allclose(first, second, _RELATIVE, _ABSOLUTE * scale, equal_nan=True))

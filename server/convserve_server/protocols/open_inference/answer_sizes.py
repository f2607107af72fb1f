"""How large an answer may be: what a model gives out is not bounded by what it is given."""

import math
from collections.abc import Sequence
from functools import lru_cache

from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import AnswerTooLarge
from convserve_server.engines.signatures import OPEN
from convserve_server.engines.tensors import DTYPES, Tensors
from convserve_server.protocols.open_inference.answers import Wanted


def check_rows(
    model: ModelDescription, wanted: Sequence[Wanted], inputs: Tensors, most: int
) -> None:
    """Refuses a request, before it is computed, by the sizes that the model's file states.

    Args:
        model: that is asked.
        wanted: outputs that are asked for.
        inputs: of the request.
        most: bytes of an answer.

    Raises:
        AnswerTooLarge: the answer would be too large, whatever the values are.
    """
    rows = inputs.count if model.signature.batched else 1
    _check(rows * _row_bytes(model, tuple(wanted)), most)


def check_outputs(wanted: Sequence[Wanted], outputs: Tensors, most: int) -> None:
    """Refuses to send what a model gave, where its sizes were not known before.

    Args:
        wanted: outputs that are asked for.
        outputs: of the model, for one request.
        most: bytes of an answer.

    Raises:
        AnswerTooLarge: the answer would be too large.
    """
    sent = [outputs.arrays[position] for position, classes in wanted if not classes]
    _check(sum(array.nbytes for array in sent), most)


def _check(size: int, most: int) -> None:
    if size > most:
        raise AnswerTooLarge(
            f"outputs: expected an answer of at most {most} bytes (max_answer_bytes), got {size}; "
            "ask for fewer rows or outputs",
            most,
        )


@lru_cache(maxsize=256)
def _row_bytes(model: ModelDescription, wanted: tuple[Wanted, ...]) -> int:
    """Returns the bytes of one row of an answer, of those outputs whose sizes are fixed."""
    first = 1 if model.signature.batched else 0
    specs = [model.signature.outputs[position] for position, classes in wanted if not classes]
    return sum(
        math.prod(spec.shape[first:]) * DTYPES[spec.datatype].itemsize
        for spec in specs
        if OPEN not in spec.shape[first:]
    )

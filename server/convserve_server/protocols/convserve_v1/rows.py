"""Rows of probabilities as protobuf, all at once: what every answer without top_k is made of."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb

_FLOAT_BYTES = 4


def results_of(rows: NDArray[np.float32]) -> bytes:
    """Returns the field results of a ClassifyResponse, one prediction a row, serialized.

    All rows have the same length, so each result is the same few bytes and its floats as they lie
    in memory: one copy for all, where protobuf's own way takes 2 µs a row.

    Source: https://protobuf.dev/programming-guides/encoding/ (length-delimited and packed fields;
    floats are little-endian).

    Args:
        rows: float32 [N, K], K at least 1.
    """
    count, classes = rows.shape
    head = _head(classes)
    encoded = np.empty((count, len(head) + classes * _FLOAT_BYTES), np.uint8)
    encoded[:, : len(head)] = head
    encoded[:, len(head) :] = np.ascontiguousarray(rows, "<f4").view(np.uint8)
    return encoded.tobytes()


@lru_cache(maxsize=64)
def _head(classes: int) -> NDArray[np.uint8]:
    """Returns the bytes before the floats of each result, uint8 [n]."""
    response = pb.ClassifyResponse()
    response.results.add().prediction.probabilities.extend([0.0] * classes)
    whole = response.SerializeToString()
    return np.frombuffer(whole[: len(whole) - classes * _FLOAT_BYTES], np.uint8)

"""Rows that are serialized by hand are what protobuf makes of them, to the byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.convserve_v1.rows import results_of, timings_of


def by_protobuf(rows: np.ndarray) -> bytes:
    response = pb.ClassifyResponse()
    for row in rows.tolist():
        response.results.add().prediction.probabilities.extend(row)
    return response.SerializeToString()


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.integers(1, 40)),
        elements=st.floats(width=32, allow_nan=False),
    )
)
def test_rows_are_what_protobuf_makes_of_them(rows: np.ndarray) -> None:
    assert results_of(rows) == by_protobuf(rows)


@pytest.mark.parametrize("classes", [1, 10, 31, 32, 1000, 5000, 600_000])
def test_lengths_of_every_size(classes: int) -> None:
    rows = np.random.default_rng(classes).random((2, classes), np.float32)
    assert results_of(rows) == by_protobuf(rows)


def test_rows_that_do_not_lie_together() -> None:
    rows = np.random.default_rng(0).random((6, 20), np.float32)[::2, ::2]
    assert results_of(rows) == by_protobuf(rows)


@given(*[st.one_of(st.just(0.0), st.floats(0, 0.1), st.floats(0, 1e12))] * 3)
def test_timings_are_what_protobuf_makes_of_them(
    queue: float, compute: float, decode: float
) -> None:
    us = [round(seconds * 1e6) for seconds in (queue, compute, decode)]
    timings = pb.Timings(queue_us=us[0], compute_us=us[1], decode_us=us[2])
    expected = pb.ClassifyResponse(timings=timings).SerializeToString()
    assert timings_of(queue, compute, decode) == expected

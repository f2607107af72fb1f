"""Several labels a picture: cells of tables, rows of 0 and 1, and parts of a set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from convserve_trainer.datasets import label_sets
from convserve_trainer.errors import DataError


@pytest.mark.parametrize(
    ("cell", "labels"),
    [("", ()), ("  ", ()), ("sea", ("sea",)), (" sea | beach", ("beach", "sea"))],
)
def test_cell_has_any_number_of_labels(cell: str, labels: tuple[str, ...]) -> None:
    assert label_sets.read(cell, "line 2") == labels


def test_label_is_the_same_however_its_accents_are_written() -> None:
    assert label_sets.read("cafe\u0301", "") == ("caf\u00e9",)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a|", "line 2: expected labels of printable text, got ''"),
        ("|", "line 2: expected labels of printable text, got ''"),
        ("a|b\u200b", "line 2: expected labels of printable text, got 'b\\u200b'"),
        ("a|b|a", "line 2: expected each label once, got a|a|b"),
    ],
)
def test_cell_that_is_not_as_it_should_be_is_refused(cell: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        label_sets.read(cell, "line 2")
    assert str(caught.value) == message


def test_rows_have_a_1_for_each_label() -> None:
    rows = label_sets.matrix([(0, 2), (), (1,)], 3)
    assert rows.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert rows.dtype == np.uint8


@given(
    arrays(np.int64, st.tuples(st.integers(2, 60), st.integers(2, 5)), elements=st.integers(0, 1)),
    st.floats(0.05, 0.5),
)
def test_part_has_a_picture_and_never_all(rows: np.ndarray, share: float) -> None:
    chosen = label_sets.spread(rows, share, np.random.default_rng(0))
    assert 1 <= chosen.sum() < len(rows)
    again = label_sets.spread(rows, share, np.random.default_rng(0))
    assert np.array_equal(chosen, again)


def test_part_has_its_share_of_every_label() -> None:
    random = np.random.default_rng(5)
    rows = (random.random((2_000, 12)) < np.geomspace(0.01, 0.6, 12)).astype(np.int64)
    chosen = label_sets.spread(rows, 0.1, np.random.default_rng(0))
    assert chosen.mean() == pytest.approx(0.1, abs=0.01)
    wanted = 0.1 * rows.sum(axis=0)
    assert np.abs(rows[chosen].sum(axis=0) - wanted).max() <= 0.05 * wanted.max() + 1


def test_single_picture_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="expected two pictures or more to keep some of them"):
        label_sets.spread(np.ones((1, 2), np.int64), 0.1, np.random.default_rng(0))

import numpy as np
import numpy.typing as npt
import pytest

from convserve_trainer.nets import elastic

SIZES = (5, 9, 28)


def _picture(rows: int = 3, columns: int = 4) -> npt.NDArray[np.float32]:
    values = np.arange(1, rows * columns + 1, dtype=np.float32)
    return values.reshape(1, rows, columns, 1)


def _taken(
    picture: npt.NDArray[np.float32], column: float, row: float, fill: str = "black"
) -> npt.NDArray[np.float32]:
    """Returns the picture [H, W], each pixel taken from so many columns and rows further."""
    rows, columns = picture.shape[1:3]
    down, across = np.indices((rows, columns)).astype(np.float32)[:, np.newaxis]
    return np.array(elastic.taken(picture, across + column, down + row, fill))[0, ..., 0]


@pytest.mark.parametrize("size", SIZES)
def test_equal_nodes_move_every_pixel_alike(size: int) -> None:
    assert elastic.weights(size).sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_at_nodes_have_the_nodes_values(size: int) -> None:
    nodes = np.random.default_rng(0).random((2, elastic.NODES, elastic.NODES)).astype(np.float32)
    values = np.array(elastic.spread(nodes, size, 9))
    assert values.shape == (2, size, 9)
    assert values[:, [0, -1]][:, :, ::2] == pytest.approx(nodes[:, [0, -1]], abs=1e-6)


def test_values_between_inner_nodes_are_those_of_a_parabola() -> None:
    at = np.linspace(0, elastic.NODES - 1, 41)
    found = elastic.weights(41) @ (np.arange(elastic.NODES) ** 2.0)
    assert found[10:31] == pytest.approx(at[10:31] ** 2, abs=1e-5)  # Keys 1981: of third order


def test_pixels_that_stay_are_the_same() -> None:
    assert np.array_equal(_taken(_picture(), 0, 0), _picture()[0, ..., 0])


def test_pixel_between_others_is_their_mean() -> None:
    assert _taken(_picture(), 0.5, 0).tolist() == [
        [1.5, 2.5, 3.5, 2],  # beyond the border is black
        [5.5, 6.5, 7.5, 4],
        [9.5, 10.5, 11.5, 6],
    ]
    assert _taken(_picture(), 0, -0.5)[:, 0].tolist() == [0.5, 3, 7]
    assert _taken(_picture(), 0.5, 0.5)[0, 0] == (1 + 2 + 5 + 6) / 4


def test_beyond_the_border_is_black_or_the_picture() -> None:
    assert np.array_equal(_taken(_picture(), 9, 0), np.zeros((3, 4)))
    mirrored = _taken(_picture(), 2, -1, "reflect")
    assert mirrored.tolist() == [[3, 4, 4, 3], [3, 4, 4, 3], [7, 8, 8, 7]]


def test_each_channel_and_picture_is_taken_by_itself() -> None:
    pictures = np.random.default_rng(0).random((3, 4, 5, 2)).astype(np.float32)
    down, across = np.broadcast_to(np.indices((4, 5))[:, None], (2, 3, 4, 5)).astype(np.float32)
    found = np.array(elastic.taken(pictures, across + 1, down, "black"))
    assert found[:, :, :-1] == pytest.approx(pictures[:, :, 1:], abs=1e-6)
    assert (found[:, :, -1] == 0).all()

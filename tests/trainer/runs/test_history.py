import io
import math
from dataclasses import replace

import pytest
from PIL import Image

from convserve_trainer.report import plot
from convserve_trainer.runs.history import Epoch, History, read_csv


def _epoch(number: int, val_loss: float | None) -> Epoch:
    val_accuracy = None if val_loss is None else 0.1 * number
    return Epoch(number, 1 / number, 1 / 3, val_loss, val_accuracy, 2.0, 0.01 * number, 1e-3)


def _history(*losses: float | None) -> History:
    return History([_epoch(number, loss) for number, loss in enumerate(losses, start=1)])


def test_table_comes_back_as_it_was() -> None:
    several = History([replace(_epoch(1, 0.5), val_map=2 / 3), _epoch(2, 0.4)])
    for history in (_history(0.7, 0.1 + 0.2), _history(None), History(), several):
        assert read_csv(history.csv()) == history.epochs
    assert several.csv().splitlines()[1].endswith(",0.6666666666666666")


def test_table_has_a_line_of_names_and_one_for_each_epoch() -> None:
    assert _history(0.5, None).csv().splitlines() == [
        "epoch,loss,accuracy,val_loss,val_accuracy,seconds,input_share,learning_rate",
        "1,1.0,0.3333333333333333,0.5,0.1,2.0,0.01,0.001",
        "2,0.5,0.3333333333333333,,,2.0,0.02,0.001",
    ]


def test_other_table_is_refused() -> None:
    with pytest.raises(ValueError, match="the history has columns"):
        read_csv("epoch,loss\n1,2\n")


def test_best_epoch_has_the_lowest_validation_loss() -> None:
    assert _history(0.7, 0.5, 0.6).best.epoch == 2
    assert _history(0.7, 0.5, 0.5).best.epoch == 2, "the first of equals"
    assert _history(math.nan, 0.9, math.nan).best.epoch == 2
    assert _history(None, None, None).best.epoch == 3, "without validation the last"


def test_input_share_is_that_of_the_whole_time() -> None:
    assert _history(0.5, 0.5).input_share == pytest.approx(0.015)


@pytest.mark.parametrize("losses", [(0.7, 0.5, 0.6), (None, None), (0.7,)])
def test_plot_is_a_png_and_an_svg_of_the_same_bytes_each_time(
    losses: tuple[float | None, ...],
) -> None:
    drawn = plot.plot(_history(*losses), "cats-dogs")
    assert drawn == plot.plot(_history(*losses), "cats-dogs")
    with Image.open(io.BytesIO(drawn["png"])) as picture:
        assert picture.size == (1200, 504)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert (0x1F, 0x77, 0xB4) in colours, "dots of the training"
    validated = len(losses) > 1 and losses[-1] is not None
    assert ((0xD9, 0x5F, 0x02) in colours) == validated or len(losses) == 1
    assert drawn["svg"].startswith(b"<?xml")

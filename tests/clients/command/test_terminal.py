import pty
import re
from io import StringIO

import numpy as np
import pytest

from convserve.command.terminal import BAR_CELLS, draw_bar, draw_digit, has_colours
from convserve.command.terminal_text import padded, printable, shortened, width_of


def test_digit_is_drawn_with_two_rows_in_a_line() -> None:
    pixels = np.array([[0, 255, 0, 255], [0, 0, 255, 255], [200, 0, 0, 90]], np.uint8)
    assert draw_digit(pixels) == " ▀▄█\n▀   "
    assert draw_digit(pixels[:, :, np.newaxis]) == draw_digit(pixels)


def test_field_of_28_is_14_lines_of_28() -> None:
    lines = draw_digit(np.zeros((28, 28, 1), np.uint8)).split("\n")
    assert [len(line) for line in lines] == [28] * 14


def test_colours_are_greys_and_are_reset_in_each_line() -> None:
    drawn = draw_digit(np.array([[0, 255], [255, 128]] * 2, np.uint8), colour=True)
    for line in drawn.split("\n"):
        assert line == "\x1b[38;5;232;48;5;255m▀\x1b[38;5;255;48;5;244m▀\x1b[0m"


def test_levels_are_spread_over_all_greys_of_the_terminal() -> None:
    levels = np.arange(256).astype(np.uint8).reshape(2, 128)
    greys = {int(grey) for grey in re.findall(r";5;(\d+)", draw_digit(levels, colour=True))}
    assert greys == set(range(232, 256))


@pytest.mark.parametrize(
    ("share", "bar"),
    [(0, ""), (1, "█" * BAR_CELLS), (0.5, "█" * 10), (0.05, "█"), (0.025, "▌"), (0.001, "")],
)
def test_bar_is_as_long_as_the_share(share: float, bar: str) -> None:
    assert draw_bar(share) == bar


def test_bar_never_shrinks_as_the_share_grows() -> None:
    eighths = "▏▎▍▌▋▊▉█"
    lengths = [
        sum(eighths.index(cell) + 1 for cell in draw_bar(share)) for share in np.linspace(0, 1, 500)
    ]
    assert lengths == sorted(lengths)
    assert set(lengths) == set(range(8 * BAR_CELLS + 1))


def test_text_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed é") == r"a\x1b[2Jb\nc\u202ed é"
    assert printable("\udcff\x9b.jpg") == r"\udcff\x9b.jpg"


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("cat.jpg", 7), ("é", 1), ("e\u0301", 1), ("猫.jpg", 6), ("Ａ", 2)]
)
def test_width_is_that_of_the_terminal(text: str, width: int) -> None:
    assert width_of(text) == width
    assert width_of(padded(text, 9)) == 9
    assert padded(text, 9).startswith(text)


def test_long_text_keeps_its_ends() -> None:
    assert shortened("/photos/2026/cats/0001.jpg", 13) == "/photo…01.jpg"
    assert shortened("/photos/1.jpg", 13) == "/photos/1.jpg"


@pytest.mark.parametrize("text", ["a" * 40, "猫" * 40, "a猫" * 20, "e\u0301" * 40])
@pytest.mark.parametrize("width", [1, 2, 3, 10, 11, 39])
def test_shortened_text_fits(text: str, width: int) -> None:
    short = shortened(text, width)
    assert width - 2 <= width_of(short) <= width
    assert "…" in short


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False), ({"TERM": "xterm"}, True)],
)
def test_colours_are_for_terminals_that_know_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colours: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with open(ours, "rb"), open(theirs, "w") as terminal:
        assert has_colours(terminal) == colours
    assert not has_colours(StringIO())

import io
from dataclasses import replace

import pytest

from convserve_trainer.fitting.progress import Progress, duration
from convserve_trainer.runs.history import Epoch

LOGS = {"loss": 0.25, "accuracy": 0.9}
DIGITS = Epoch(2, 0.25, 0.9, None, None, seconds=12.34, input_share=0.0042, learning_rate=1e-3)
PHOTOS = Epoch(2, 0.25, 0.9, 0.5, 0.75, seconds=12.34, input_share=0.0042, learning_rate=1e-3)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _epoch(stream: io.StringIO, epoch: Epoch) -> str:
    progress = Progress(stream, epochs=5, steps=10, validated=epoch is PHOTOS)
    progress.start(1)
    for done in range(1, 11):
        progress.step(done, LOGS)
    progress.finish(epoch)
    return stream.getvalue()


def test_progress_into_a_file_is_a_table() -> None:
    assert _epoch(io.StringIO(), DIGITS) == (
        "epoch     loss  accuracy  seconds    input     left\n"
        "  2/5   0.2500    0.9000     12.3     0.4%     37 s\n"
    )
    assert _epoch(io.StringIO(), PHOTOS) == (
        "epoch     loss  accuracy  val_loss  val_accuracy  seconds    input     left\n"
        "  2/5   0.2500    0.9000    0.5000        0.7500     12.3     0.4%     37 s\n"
    )


def test_progress_on_a_terminal_redraws_one_line() -> None:
    _, *drawn, last = _epoch(_Terminal(), PHOTOS).split("\r")[1:]
    first = drawn[0]
    assert first.startswith("epoch 2/5  [==            ] 2/10  loss 0.2500")
    assert first.endswith(" s left")
    assert last.startswith("  2/5   0.2500")
    assert len(last.removesuffix("\n")) >= len(first), "the longer line must be overwritten"
    assert len(first) < 80


def test_checkpoint_within_an_epoch_is_a_line_in_a_file_and_nothing_on_a_terminal() -> None:
    shown = {}
    for stream in (io.StringIO(), _Terminal()):
        progress = Progress(stream, epochs=5, steps=10, validated=False)
        progress.start(1)
        begun = len(stream.getvalue())
        progress.kept(7, LOGS)
        shown[stream.isatty()] = stream.getvalue()[begun:].splitlines()
    assert shown == {False: ["epoch 2/5  step 7/10  loss 0.2500  accuracy 0.9000  kept"], True: []}


def test_warning_is_a_line_below_the_bar() -> None:
    stream = _Terminal()
    progress = Progress(stream, epochs=5, steps=10, validated=False)
    progress.start(1)
    for done in (1, 2):
        progress.step(done, LOGS)
    progress.say("warning: none")
    progress.say("warning: another")
    bar, *rest = stream.getvalue().split("\r")[-1].split("\n")
    assert bar.startswith("epoch 2/5  [")
    assert rest == ["warning: none", "warning: another", ""]


def test_table_has_one_head() -> None:
    stream = io.StringIO()
    progress = Progress(stream, epochs=5, steps=10, validated=False)
    for _ in range(2):
        progress.start(1)
        progress.finish(DIGITS)
    assert stream.getvalue().count("epoch") == 1


def test_time_left_is_that_of_the_epochs_after_the_first() -> None:
    stream = io.StringIO()
    progress = Progress(stream, epochs=100, steps=10, validated=False)
    for number, seconds in enumerate((500, 10, 10, 50)):
        progress.start(number)
        progress.finish(replace(DIGITS, epoch=number + 1, seconds=seconds))
    last = [line.split("%")[1].strip() for line in stream.getvalue().splitlines()[1:]]
    assert last == ["13.8 h", "16 min", "16 min", "16 min"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words

import io

from convserve_trainer.history import Epoch
from convserve_trainer.progress import Progress

LOGS = {"loss": 0.25, "accuracy": 0.9}
DIGITS = Epoch(2, 0.25, 0.9, None, None, seconds=12.34, input_share=0.0042)
PHOTOS = Epoch(2, 0.25, 0.9, 0.5, 0.75, seconds=12.34, input_share=0.0042)


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
        "epoch     loss  accuracy  seconds    input\n  2/5   0.2500    0.9000     12.3     0.4%\n"
    )
    assert _epoch(io.StringIO(), PHOTOS) == (
        "epoch     loss  accuracy  val_loss  val_accuracy  seconds    input\n"
        "  2/5   0.2500    0.9000    0.5000        0.7500     12.3     0.4%\n"
    )


def test_progress_on_a_terminal_redraws_one_line() -> None:
    _, *drawn, last = _epoch(_Terminal(), PHOTOS).split("\r")[1:]
    first = drawn[0]
    assert first.startswith("epoch 2/5  [==            ] 2/10  loss 0.2500")
    assert first.endswith(" s left")
    assert last.startswith("  2/5   0.2500")
    assert len(last.removesuffix("\n")) >= len(first), "the longer line must be overwritten"
    assert len(first) < 80


def test_table_has_one_head() -> None:
    stream = io.StringIO()
    progress = Progress(stream, epochs=5, steps=10, validated=False)
    for _ in range(2):
        progress.start(1)
        progress.finish(DIGITS)
    assert stream.getvalue().count("epoch") == 1

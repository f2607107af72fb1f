import io

from convserve_trainer.progress import Progress

LOGS = {"loss": 0.25, "accuracy": 0.9}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _epoch(stream: io.StringIO) -> str:
    progress = Progress(stream, epochs=5, steps=10)
    progress.start(1)
    for done in range(1, 11):
        progress.step(done, LOGS)
    progress.finish(LOGS)
    return stream.getvalue()


def test_progress_into_a_file_is_one_line_an_epoch() -> None:
    written = _epoch(io.StringIO())
    assert written.startswith("epoch 2/5  10/10  loss 0.2500  accuracy 0.9000  ")
    assert written.endswith(" s\n")
    assert written.count("\n") == 1
    assert "\r" not in written


def test_progress_on_a_terminal_redraws_one_line() -> None:
    written = _epoch(_Terminal())
    first, *_, last = written.split("\r")[1:]
    assert first.startswith("epoch 2/5  [==            ] 2/10  loss 0.2500")
    assert first.endswith(" s left")
    assert last.startswith("epoch 2/5  10/10  loss")
    assert len(last.removesuffix("\n")) >= len(first), "the longer line must be overwritten"
    assert len(first) < 80

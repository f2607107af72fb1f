import contextlib
import json

import numpy as np
import pytest

from convserve import BadImage, Classification, ClassScore, DeadlineExceeded, Timings
from convserve.command.file_outcomes import Answered, FileOutcome, Trouble
from convserve.command.json_output import json_line, json_objects
from convserve.command.table_rows import Table
from convserve.command.tally import Tally


def answered(file: str, label: str, probability: float = 0.75, labels: int = 3) -> FileOutcome:
    names = (label, *(f"other{index}" for index in range(labels - 1)))
    rest = (1 - probability) / (labels - 1)
    return FileOutcome(
        file,
        Answered(
            Classification(
                model="pets",
                versions=(4,),
                labels=names,
                probabilities=np.array([[probability] + [rest] * (labels - 1)], np.float32),
                classes=np.arange(labels)[np.newaxis],
                errors={},
                timings=Timings(queue_us=1, decode_us=2, compute_us=3, total_us=4, calls=1),
            )
        ),
    )


def labelled(file: str, *labels: str) -> FileOutcome:
    """An answer of a model whose pictures have several labels: cat 0.9, owl 0.6, dog 0.3."""
    names, sure = ("cat", "dog", "owl"), np.array([0.9, 0.3, 0.6], np.float32)
    scores = tuple(ClassScore(each, float(sure[names.index(each)])) for each in labels)
    return FileOutcome(
        file,
        Answered(
            Classification(
                model="pets",
                versions=(4,),
                labels=names,
                probabilities=sure[np.newaxis],
                classes=np.arange(3)[np.newaxis],
                errors={},
                timings=Timings(queue_us=1, decode_us=2, compute_us=3, total_us=4, calls=1),
                thresholds=(0.5, 0.5, 0.5),
                above_threshold=[scores],
            )
        ),
    )


def failed(file: str, reason: str = "truncated") -> FileOutcome:
    return FileOutcome(file, Trouble(reason, "the JPEG\nis truncated", "INVALID_ARGUMENT"))


def table(*files: str, top_k: int | None = 1, terminal: bool = False) -> Table:
    return Table.of(files, ["cat", "owl"], top_k=top_k, terminal=terminal)


def test_columns_stand_under_one_another() -> None:
    rows = table("a.jpg", "long/b.jpg", "猫.jpg")
    assert rows.row(answered("a.jpg", "cat")) == "a.jpg       cat   75.0%  ███████████████"
    assert rows.row(answered("猫.jpg", "cat", 1.0)) == f"猫.jpg      cat  100.0%  {'█' * 20}"
    assert rows.row(failed("long/b.jpg")) == r"long/b.jpg  -    error: the JPEG\nis truncated"


def test_further_classes_have_lines_of_their_own() -> None:
    first, second = table("a.jpg", top_k=2).row(answered("a.jpg", "cat")).split("\n")
    assert first.startswith("a.jpg  cat   75.0%")
    assert second == "       o…0   12.5%  ██▌"


def test_each_label_of_a_picture_has_a_line_unless_the_most_probable_are_asked_for() -> None:
    rows = table("a.jpg", top_k=None)
    assert [line.split()[:3] for line in rows.row(labelled("a.jpg", "cat", "owl")).split("\n")] == [
        ["a.jpg", "cat", "90.0%"],
        ["owl", "60.0%", "████████████"],
    ]
    assert rows.row(labelled("a.jpg")) == "a.jpg  -    no label reaches its threshold"
    assert rows.row(answered("a.jpg", "cat")) == table("a.jpg").row(answered("a.jpg", "cat"))
    asked = table("a.jpg", top_k=3).row(labelled("a.jpg", "cat"))
    assert [line.split()[-3] for line in asked.split("\n")] == ["cat", "owl", "dog"]


def test_file_that_is_longer_than_the_first_ones_is_whole_unless_a_terminal_must_be_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = "folder/" * 20 + "cat.jpg"
    assert table("a.jpg").row(answered(long, "cat")).startswith(f"{long}  cat")
    monkeypatch.setenv("COLUMNS", "80")
    for first in ("a.jpg", long):
        row = table(first, terminal=True).row(answered(long, "cat", 1.0))
        assert len(row) <= 80
        assert "…" in row
    assert "t.jpg  cat  100.0%  █" in row


def test_narrow_terminal_has_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    row = table("folder/" * 9, terminal=True).row(answered("folder/" * 9, "cat", 1.0))
    assert row.endswith("cat  100.0%")
    assert len(row) == 50


def test_label_cannot_steer_the_terminal_either() -> None:
    assert "\x1b" not in table("a").row(answered("a", "c\x1b[2J"))


def test_json_is_ascii_on_one_line() -> None:
    line = json_line(answered("é\n\udcff.jpg", "chât"), classes=True)
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert (found["file"], found["label"]) == ("é\n\udcff.jpg", "chât")
    assert [one["label"] for one in found["classes"]] == ["chât", "other0", "other1"]
    assert found["timings_us"] == {"queue": 1, "decode": 2, "compute": 3, "total": 4}


def test_json_has_the_labels_of_a_picture_that_may_have_several() -> None:
    found = json.loads(json_line(labelled("a.jpg", "cat", "owl"), classes=False))
    assert [each["label"] for each in found["assigned"]] == ["cat", "owl"]
    assert found["label"] == "cat"
    assert json.loads(json_line(labelled("a.jpg"), classes=False))["assigned"] == []
    assert "assigned" not in json.loads(json_line(answered("a.jpg", "cat"), classes=True))


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("stop", [None, KeyboardInterrupt])
def test_json_document_is_whole_however_it_ends(
    capsys: pytest.CaptureFixture[str], count: int, stop: type[BaseException] | None
) -> None:
    with contextlib.suppress(KeyboardInterrupt), json_objects("json") as write:
        for number in range(count):
            write(str(number))
        if stop:
            raise stop
    assert json.loads(capsys.readouterr().out) == [*range(count)]


def test_json_of_a_failure_has_code_reason_and_message() -> None:
    assert json.loads(json_line(failed("a.jpg"), classes=True)) == {
        "file": "a.jpg",
        "error": {
            "code": "INVALID_ARGUMENT",
            "reason": "truncated",
            "message": "the JPEG\nis truncated",
        },
    }


def test_summary_counts_labels_and_reasons() -> None:
    tally = Tally()
    for outcome in (answered("a", "cat"), answered("b", "dog"), answered("c", "cat"), failed("d")):
        tally.add(outcome)
    tally.add(failed("e", "missing"))
    assert tally.summary().startswith(
        "3 classified (2 cat, 1 dog), 2 failed (1 truncated, 1 missing), "
    )
    assert tally.summary().endswith(" images/s")


def test_summary_counts_each_label_of_a_picture() -> None:
    tally = Tally()
    for outcome in (labelled("a", "cat", "owl"), labelled("b", "owl"), labelled("c")):
        tally.add(outcome)
    assert tally.summary().startswith("3 classified (2 owl, 1 cat), 0 failed, ")


def test_summary_of_many_labels_names_the_most_common() -> None:
    tally = Tally()
    for number in range(25):
        tally.add(answered("a", f"l{number}"))
    tally.add(answered("a", "l7"))
    assert tally.summary().startswith("26 classified (2 l7, 1 l0, ")
    assert " and 15 more labels), 0 failed, " in tally.summary()


def test_only_files_in_a_row_count_as_no_answer() -> None:
    tally = Tally()
    late = FileOutcome("a", Trouble.of(DeadlineExceeded("late")))
    for outcome, in_a_row in [(late, 1), (late, 2), (failed("b"), 0), (late, 1)]:
        tally.add(outcome)
        assert tally.unanswered_in_a_row == in_a_row
    tally.add(answered("c", "cat"))
    assert tally.unanswered_in_a_row == 0


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (BadImage("no", reason="blank"), "blank", "no"),
        (FileNotFoundError(2, "No such file or directory"), "missing", "No such file or directory"),
        (PermissionError(13, "Permission denied"), "unreadable", "Permission denied"),
        (FileNotFoundError("no pictures"), "missing", "no pictures"),
    ],
)
def test_trouble_says_what_the_error_says(error: Exception, reason: str, message: str) -> None:
    trouble = Trouble.of(error)
    assert (trouble.reason, trouble.message, trouble.of_server) == (reason, message, False)

"""The report of check-data, as a terminal shows it."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convserve_trainer.cli.check_data import Counter
from convserve_trainer.main import main
from tests.trainer.picture_sets import fair_set, picture, save

Capsys = pytest.CaptureFixture[str]


def test_report_counts_and_ends_with_a_verdict(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    (folder / "train/cats/0.jpg").write_bytes(b"GIF89a")
    save(folder / "train/dogs/small.jpg", picture(90, 100, 100))
    assert main(["check-data", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == (
        f"{folder}: 13 pictures, train and validation\n"
        "\n"
        "  split       class  files  broken  turned\n"
        "  train       cats       3       1       0\n"
        "  train       dogs       4       0       0\n"
        "  validation  cats       3       0       0\n"
        "  validation  dogs       3       0       0\n"
        "\n"
        "  sizes: smallest 100 x 100, median 200 x 160, largest 200 x 160\n"
        "\n"
        "ERRORS\n"
        "  broken (1): broken pictures: training and serving refuse them\n"
        "    1 not-a-picture\n"
        "    train/cats/0.jpg: not a JPEG: it looks like a GIF\n"
        "\n"
        "WARNINGS\n"
        "  unbalanced (1): classes of unequal size: the larger is favoured\n"
        "    train: dogs has 4 pictures, cats 2\n"
        "\n"
        "NOTES\n"
        "  enlarged (1): pictures smaller than the training size: enlarged\n"
        "\n"
        "Not fit to train on: 1 error, 1 warning.\n"
        "--fix moves 1 file aside and deletes none.\n"
    )
    assert captured.err == f"convserve-train: {folder} would spoil a training: 1 error (broken)\n"


def test_first_ten_are_named_and_all_on_demand(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    for number in range(13):
        (folder / f"train/cats/bad{number:02}.jpg").write_bytes(b"GIF89a")
    main(["check-data", str(folder)])
    short = capsys.readouterr().out
    assert short.count("it looks like a GIF") == 10
    assert "    and 3 more (--all names them)\n" in short
    main(["check-data", str(folder), "--all"])
    whole = capsys.readouterr().out
    assert whole.count("it looks like a GIF") == 13
    assert "more (--all" not in whole


def test_long_line_is_broken_before_the_detail(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    name = f"{'long' * 20}.jpg"
    (folder / "train/cats" / name).write_bytes(b"GIF89a")
    main(["check-data", str(folder)])
    shown = f"    train/cats/{name}:\n      not a JPEG: it looks like a GIF\n"
    assert shown in capsys.readouterr().out


def test_many_copies_of_one_picture_fit_into_a_line(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    for number in range(9):
        shutil.copy(folder / "train/cats/0.jpg", folder / f"train/cats/copy{number}.jpg")
    main(["check-data", str(folder)])
    out = capsys.readouterr().out
    assert "copy0.jpg and train/cats/copy1.jpg and train/cats/copy2.jpg and 6 more" in out


def test_fix_reports_what_it_moved_and_what_is_left(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    (folder / "train/cats/bad.jpg").write_bytes(b"GIF89a")
    shutil.rmtree(folder / "validation/dogs")
    assert main(["check-data", str(folder), "--fix"]) == 1
    out = capsys.readouterr().out
    assert "--fix moves" not in out
    moved = out.partition("\nMOVED  1 file\n")[2]
    assert "1 broken: into " in " ".join(moved.split())  # A long path begins a line.
    assert "pets-set-aside/moved.tsv" in moved
    assert "  still: class-in-one-split (1): " in moved
    assert moved.endswith("\nNot fit to train on: 1 error, no warnings.\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_counter_counts_on_a_terminal_and_is_gone_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 0.05, 1.0, 2.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    stream = _Terminal()
    counter = Counter(stream, 4_000)
    for done in (500, 1_000, 4_000):
        counter(done)
    counter.clear()
    first, second, blank, end = stream.getvalue().split("\r")[1:]
    assert first == "decoding  1,000/4,000 pictures  3 s left"
    assert second.rstrip() == "comparing 4,000 pictures"
    assert len(second) == len(first), "the longer line is overwritten"
    assert blank.strip() == end == ""
    assert len(blank) >= len(second.rstrip())


def test_counter_is_silent_anywhere_else() -> None:
    stream = io.StringIO()
    counter = Counter(stream, 2)
    counter(1)
    counter(2)
    counter.clear()
    assert stream.getvalue() == ""


def test_command_loads_no_tensorflow(tmp_path: Path) -> None:
    command = ["-m", "convserve_trainer.main", "check-data", str(fair_set(tmp_path / "pets"))]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "convserve_trainer.check_data.result" in imported
    assert not imported & {"tensorflow", "keras", "grpc", "onnxruntime"}


def test_decoder_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['simplejpeg'] = None; from convserve_trainer.main import main; "
        f"sys.exit(main(['check-data', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "convserve-train: simplejpeg is not installed; run: pip install 'convserve[train]'\n"
    )


def test_help_ends_with_two_examples(capsys: Capsys) -> None:
    with pytest.raises(SystemExit):
        main(["check-data", "--help"])
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    assert len(examples) == 2
    assert all(line.startswith("  convserve-train check-data") for line in examples)

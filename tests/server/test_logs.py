"""Log lines for people and for machines."""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convserve_server.logs import JsonFormatter, PatientHandler, configure_logging


def entry_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a machine reads of a record, which must be one line."""
    line = JsonFormatter().format(record)
    assert "\n" not in line
    result: dict[str, Any] = json.loads(line)
    return result


def record_of(message: str = "hello", **attributes: object) -> logging.LogRecord:
    known = {"name": "convserve_server.x", "levelno": logging.INFO, "levelname": "INFO"}
    return logging.makeLogRecord({**known, "msg": message, **attributes})


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_json_entry_has_time_level_logger_process_and_message() -> None:
    record = record_of("%d of %s", args=(3, "four"), created=0.25, msecs=250.0, process=17)
    assert entry_of(record) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "info",
        "logger": "convserve_server.x",
        "process": 17,
        "message": "3 of four",
    }


def test_json_entry_has_what_came_with_extra() -> None:
    entry = entry_of(record_of(fault_id="abc", port=50051, odd={1, 2}))
    assert (entry["fault_id"], entry["port"]) == ("abc", 50051)
    # What JSON lacks is written as text.
    assert entry["odd"] == "{1, 2}"


def test_json_entry_of_an_exception_has_the_traceback_in_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        entry = entry_of(record_of("multi\nline", exc_info=sys.exc_info()))
    assert entry["message"] == "multi\nline"
    assert entry["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["exception"].endswith("ValueError: two\nlines")


def test_json_entry_without_exception_has_no_such_key() -> None:
    assert "exception" not in entry_of(record_of())


def written(capfd: pytest.CaptureFixture[str]) -> Any:
    """What has been logged, once it is written."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    return capfd.readouterr()


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield root
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("root")
def test_text_format_is_a_line_for_people_on_standard_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "text")
    logging.getLogger("convserve_server.x").warning("careful with %s", "this")
    out, err = written(capfd)
    assert err == ""
    assert out.count("\n") == 1
    assert "WARNING" in out
    assert out.endswith("careful with this\n")
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)


@pytest.mark.usefixtures("root")
def test_json_format_is_an_object_a_line_on_standard_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "json")
    logger = logging.getLogger("convserve_server.x")
    logger.info("one", extra={"port": 5})
    logger.error("two")
    entries = [json.loads(line) for line in written(capfd).out.splitlines()]
    assert [(e["level"], e["message"], e.get("port")) for e in entries] == [
        ("info", "one", 5),
        ("error", "two", None),
    ]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_hides_what_is_less_severe(
    level: str, expected: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level, "json")
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("convserve_server.x"), name)("said")
    entries = [json.loads(line) for line in written(capfd).out.splitlines()]
    assert [entry["level"] for entry in entries] == expected


def test_configure_again_replaces_the_handler(
    root: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "text")
    configure_logging("info", "json")
    root.info("once")
    assert len(written(capfd).out.splitlines()) == 1


# Readers that do not read


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The ends of a pipe, to read from and to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def logger_to(descriptor: int, most_bytes: int = 10_000) -> tuple[logging.Logger, PatientHandler]:
    handler = PatientHandler(descriptor, most_bytes)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.Logger("patient")
    logger.addHandler(handler)
    return logger, handler


def test_reader_that_does_not_read_holds_up_nobody_and_learns_what_was_dropped(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    logger, handler = logger_to(writer)
    # More than the pipe and the queue hold: if it waited, this would never end.
    sent = [f"{number:099d}" for number in range(3000)]
    for line in sent:
        logger.info(line)
    with open(reader, closefd=False) as lines:
        kept: list[str] = []
        dropped = 0
        while len(kept) + dropped < len(sent):
            line = lines.readline().rstrip("\n")
            if line.endswith(" lines of the log were dropped, because they could not be written"):
                dropped += int(line.split()[0])
            else:
                kept.append(line)
        # They come in order, and what is missing was counted.
        assert kept == sorted(kept)
        assert dropped > 0
        logger.info("again")
        assert lines.readline() == "again\n"
    handler.flush()


def test_reader_that_is_gone_holds_up_nobody(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    logger, handler = logger_to(writer)
    for number in range(100):
        logger.info("line %d", number)
    handler.flush()
    assert handler.dropped == 100


def test_full_disk_is_counted_and_reported_when_there_is_space(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full, (tmp_path / "log").open("wb") as file:
        target = os.dup(full.fileno())
        logger, handler = logger_to(target)
        logger.info("lost")
        handler.flush()
        os.dup2(file.fileno(), target)
        logger.info("kept")
        handler.flush()
        os.close(target)
    assert (tmp_path / "log").read_text().splitlines() == [
        "kept",
        "1 lines of the log were dropped, because they could not be written",
    ]


def test_long_lines_count_by_their_bytes(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    logger, handler = logger_to(writer, most_bytes=1000)
    logger.info("x" * 2000)
    assert handler.dropped == 1

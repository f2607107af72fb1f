"""Log lines for people and for machines."""

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from convserve_server.logs import JsonFormatter, configure_logging


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
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "text")
    logging.getLogger("convserve_server.x").warning("careful with %s", "this")
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    assert "WARNING" in out
    assert out.endswith("careful with this\n")
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)


@pytest.mark.usefixtures("root")
def test_json_format_is_an_object_a_line_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "json")
    logger = logging.getLogger("convserve_server.x")
    logger.info("one", extra={"port": 5})
    logger.error("two")
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
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
    level: str, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level, "json")
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("convserve_server.x"), name)("said")
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["level"] for entry in entries] == expected


def test_configure_again_replaces_the_handler(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "text")
    configure_logging("info", "json")
    root.info("once")
    assert len(capsys.readouterr().out.splitlines()) == 1

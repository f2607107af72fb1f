"""The times of batches that a server keeps, in memory and in a folder."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from convserve_server.core.tables import Bundle
from convserve_server.process.time_store import _MOST, FILE, TimesKey, TimeStore
from convserve_server.process.times import StoredTimes
from convserve_server.settings.settings import Settings, make_settings

KEY = TimesKey("a" * 64, "cpu", "auto", 1, 0)
TABLE = {1: 0.0002, 4: 0.0003, 16: 0.001}
MACHINE = "AMD EPYC, NVIDIA H100"


def kept(folder: Path) -> Path:
    """Write a file with one table, and return it."""
    store = TimeStore(folder, MACHINE)
    store.put(KEY, TABLE)
    store.flush(20.0)
    return folder / FILE


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_table_is_known_by_file_device_engine_threads_and_maximum_batch_size() -> None:
    store = TimeStore()
    store.put(KEY, TABLE)
    assert store.get(TimesKey("a" * 64, "cpu", "auto", 1, 0)) == TABLE
    for other in (
        TimesKey("b" * 64, "cpu", "auto", 1, 0),
        TimesKey("a" * 64, "auto", "auto", 1, 0),
        TimesKey("a" * 64, "cpu", "openvino", 1, 0),
        TimesKey("a" * 64, "cpu", "auto", 2, 0),
        TimesKey("a" * 64, "cpu", "auto", 1, 8),
    ):
        assert store.get(other) == {}


def test_tables_in_the_folder_are_known_after_a_restart(tmp_path: Path) -> None:
    kept(tmp_path)
    store = TimeStore(tmp_path, MACHINE)
    assert store.get(KEY) == TABLE
    other = TimesKey("b" * 64, "auto", "auto", 2, 8)
    store.put(other, {1: 1.5})
    store.flush(20.0)
    again = TimeStore(tmp_path, MACHINE)
    assert (again.get(KEY), again.get(other)) == (TABLE, {1: 1.5})


def test_empty_table_is_not_kept(tmp_path: Path) -> None:
    store = TimeStore(tmp_path)
    store.put(KEY, {})
    store.flush(20.0)
    assert not (tmp_path / FILE).exists()


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    store = TimeStore()
    keys = [TimesKey(f"{number:064}", "cpu", "auto", 1, 0) for number in range(_MOST + 2)]
    for key in keys:
        store.put(key, TABLE)
    assert [store.get(key) == TABLE for key in keys] == [False] * 2 + [True] * _MOST


def changed(**values: Any) -> str:
    """The content of a file with one table, with other values in the table or around it."""
    table = {
        "digest": "a" * 64,
        "device": "cpu",
        "engine": "auto",
        "engine_threads": 1,
        "max_batch": 0,
    }
    table |= {"batch_s": {"1": 0.5}} | {name: values[name] for name in values.keys() & _FIELDS}
    content = {"version": 2, "machine": MACHINE, "tables": [table]}
    return json.dumps(content | {name: values[name] for name in values.keys() - _FIELDS})


_FIELDS = {"digest", "device", "engine", "engine_threads", "max_batch", "batch_s", "more"}


def test_content_that_is_changed_in_nothing_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(changed())
    assert TimeStore(tmp_path, MACHINE).get(KEY) == {1: 0.5}
    assert complaints(caplog) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "Expecting value"),
        ("[1, 2", "Expecting"),
        ("[" * 100_000, "recursion"),
        ("\x00\x01", "Expecting value"),
        ("[]", "expected an object, got list"),
        ("{}", "version: expected 2, got None"),
        (changed(version=1), "version: expected 2, got 1"),
        (changed(machine="Cray-1"), f"machine: expected '{MACHINE}', got 'Cray-1'"),
        (changed(tables={}), "tables: expected a list"),
        (changed(tables=[7]), "tables: expected tables of times"),
        (changed(more=1), "tables: expected tables of times"),
        (changed(digest=5), "tables: expected digest"),
        (changed(batch_s=[]), "tables: expected tables of times"),
        (changed(batch_s={}), "tables: expected digest"),
        (changed(batch_s={"2": 0.5}), "tables: expected digest"),
        (changed(batch_s={"one": 0.5}), "tables: expected tables of times"),
        (changed(batch_s={"1": 0.5, "0": 0.5}), "batch_s: expected seconds by size, got 0.5 for 0"),
        (changed(batch_s={"1": -0.5}), "batch_s: expected seconds"),
        (changed(batch_s={"1": float("nan")}), "batch_s: expected seconds"),
        (changed(batch_s={"1": "fast"}), "batch_s: expected seconds"),
        (" " * 2**24 + "{}", "expected at most 16777216 bytes, got more"),
    ],
    ids=lambda value: value[:40] if value.isprintable() else "",
)
def test_damaged_file_is_named_once_and_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, why: str
) -> None:
    (tmp_path / FILE).write_text(content)
    store = TimeStore(tmp_path, MACHINE)
    assert store.get(KEY) == {}
    [line] = complaints(caplog)
    assert line.startswith(f"{tmp_path / FILE}: ")
    assert why in line
    assert line.endswith("; the times of batches are measured again")
    store.put(KEY, TABLE)
    store.flush(20.0)
    assert TimeStore(tmp_path, MACHINE).get(KEY) == TABLE


def test_file_that_cannot_be_read_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).mkdir()
    assert TimeStore(tmp_path, MACHINE).get(KEY) == {}
    assert complaints(caplog) == [
        f"{tmp_path / FILE}: cannot be read: Is a directory; "
        "the times of batches are measured again"
    ]


def test_folder_that_cannot_be_written_is_named_once_and_tables_stay_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = TimeStore(tmp_path / "missing", MACHINE)
    for number in range(3):
        store.put(TimesKey("a" * 64, "cpu", "auto", number, 0), TABLE)
        store.flush(20.0)
    assert complaints(caplog) == [
        f"{tmp_path / 'missing' / FILE} cannot be written: No such file or directory; "
        "the times of batches are measured again at the next start"
    ]
    assert store.get(TimesKey("a" * 64, "cpu", "auto", 2, 0)) == TABLE


def test_read_only_folder_is_named_and_what_is_there_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    # A mode would not stop a test that root runs.
    monkeypatch.setattr(Path, "write_text", refuse)
    store = TimeStore(tmp_path, MACHINE)
    assert store.get(KEY) == TABLE
    store.put(TimesKey("b" * 64, "cpu", "auto", 1, 0), TABLE)
    store.flush(20.0)
    [line] = complaints(caplog)
    assert "cannot be written: Read-only file system" in line
    assert TimeStore(tmp_path, MACHINE).get(KEY) == TABLE


def test_times_of_a_bundle_are_those_of_its_file_with_the_settings_of_its_model() -> None:
    def settings(max_batch: int) -> Settings:
        return make_settings({"mnist": {"max_batch": max_batch}}, models="here", engine_threads=1)

    times = StoredTimes(TimeStore(), settings(0))
    times.put(Bundle("mnist", 1, "a" * 64), TABLE)
    # Another version, or another model, of the same file.
    assert times.get(Bundle("mnist", 2, "a" * 64)) == TABLE
    assert times.get(Bundle("copy", 1, "a" * 64)) == TABLE
    assert times.get(Bundle("mnist", 1, "b" * 64)) == {}
    times.settings = settings(8)
    assert times.get(Bundle("mnist", 1, "a" * 64)) == {}

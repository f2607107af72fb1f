"""Folders in which other workers write at the same time."""

from pathlib import Path

from convserve_scoring.folders import LocalFolder


def test_file_that_is_gone_while_they_are_listed_is_passed_over(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    for name in ("1", "2", "3"):
        folder.write(name, b"content")
    found = folder.files()
    assert next(found) == ("1", 7)
    folder.remove("2")
    assert list(found) == [("3", 7)]

"""What check finds: each fault is made, and named."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convserve_scoring.checking import check
from convserve_scoring.main import main
from tests.scoring.jobs import plan, write_images

SECOND = "rows/packed-000001.parquet"


@pytest.fixture
def target(tmp_path: Path, model: Path) -> Path:
    """Rows of two shards of four images."""
    write_images(tmp_path / "images", 8)
    plan(tmp_path / "images", tmp_path / "scored", model)
    assert main(["run", str(tmp_path / "scored"), "--workers", "1"]) == 0
    return tmp_path / "scored"


def changed(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def test_whole_rows_are_found_whole(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = check(str(target))
    assert (found.shards, found.images, found.done, found.bad, found.whole) == (2, 8, 2, 0, True)
    capsys.readouterr()
    assert main(["check", str(target)]) == 0
    assert capsys.readouterr().out == (
        "whole shards: 2 of 2; images planned: 8; rows with an error: 0\n"
    )


@pytest.mark.parametrize(
    ("change", "lost", "repeated", "problem"),
    [
        (lambda rows: rows.slice(1), 1, 0, "expected 4 images, got 1 lost, 0 repeated"),
        (
            lambda rows: pa.concat_tables([rows, rows.slice(2)]),
            0, 2, "expected 4 images, got 0 lost, 2 repeated",
        ),
        (
            lambda rows: pa.concat_tables([rows.slice(1), rows.slice(2, 1)]),
            1, 1, "expected 4 images, got 1 lost, 1 repeated",
        ),
        (
            lambda rows: rows.sort_by([("path", "descending")]),
            0, 0, "its rows are in another order",
        ),
        (
            lambda rows: rows.set_column(6, "sha256", pa.array(["0" * 64] * 4)),
            0, 0, "expected rows of model ",
        ),
    ],
)  # fmt: skip
def test_rows_that_are_not_those_of_the_shard_are_named(
    change: Callable[[pa.Table], pa.Table], lost: int, repeated: int, problem: str, target: Path
) -> None:
    changed(target / SECOND, change)
    found = check(str(target))
    assert (found.lost, found.repeated, found.done) == (lost, repeated, 1)
    assert list(found.wrong) == ["packed-000001.parquet"]
    assert problem in found.wrong["packed-000001.parquet"]
    assert not found.whole


def test_rows_that_cannot_be_read_are_lost(target: Path) -> None:
    (target / SECOND).write_bytes((target / SECOND).read_bytes()[:100])
    found = check(str(target))
    assert (found.lost, found.done) == (4, 1)
    assert "cannot be read" in found.wrong["packed-000001.parquet"]


def test_shard_that_is_gone_is_named(target: Path) -> None:
    (target / "shards" / "packed-000001.parquet").unlink()
    assert "the shard cannot be read" in check(str(target)).wrong["packed-000001.parquet"]


def test_missing_and_strange_rows_are_named(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (target / SECOND).rename(target / "rows" / "strange.parquet")
    capsys.readouterr()
    assert main(["check", str(target)]) == 3
    assert capsys.readouterr().out.splitlines() == [
        "whole shards: 1 of 2; images planned: 8; rows with an error: 0",
        "not scored yet: 1",
        "  packed-000001.parquet",
        "rows of no shard: 1",
        "  rows/strange.parquet",
    ]


def test_shard_that_cannot_be_read_fails_and_is_named(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (target / SECOND).unlink()
    (target / "shards" / "packed-000001.parquet").write_bytes(b"PAR1 and nothing else")
    assert main(["run", str(target), "--workers", "1"]) == 3
    capsys.readouterr()
    assert main(["check", str(target)]) == 3
    printed = capsys.readouterr().out
    assert "failed: 1\n  packed-000001.parquet: ArrowInvalid: " in printed

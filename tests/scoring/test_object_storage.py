"""Images, model, plan and rows in a bucket: a stand-in for S3 on this machine."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convserve_scoring.folders import open_folder
from convserve_scoring.main import main
from convserve_store.bundles import BundleStore
from convserve_store.location import open_location
from tests.scoring.jobs import DAMAGED, POISON, plan, rows, score, write_images
from tests.store.stand_in import BUCKET, StandIn

URL = f"s3://{BUCKET}"


def upload(folder: Path, url: str) -> None:
    location = open_location(url)
    location.filesystem.put(f"{folder}/", f"{location.path}/", recursive=True)


def rows_in(target: str) -> pa.Table:
    folder = open_folder(target)
    names = [name for name, _ in folder.files("rows")]
    tables = []
    for name in names:
        with folder.open(name) as file:
            tables.append(pq.read_table(file))
    return pa.concat_tables(tables).sort_by("path")


@pytest.fixture
def images(tmp_path: Path, s3: StandIn) -> Path:
    write_images(tmp_path / "images", 12, {5: DAMAGED})
    upload(tmp_path / "images", f"{URL}/images")
    return tmp_path / "images"


def test_bucket_is_scored_as_a_folder_is(images: Path, model: Path, tmp_path: Path) -> None:
    plan(images, tmp_path / "scored", model)
    assert main(["run", str(tmp_path / "scored"), "--workers", "1"]) == 0
    target = f"{URL}/scored"
    store = BundleStore(open_location(f"{URL}/models"))
    store.publish((model / "3" / "model.onnx").read_bytes(), "colours", 3)
    command = ["plan", f"{URL}/images", "--target", target, "--model", f"{URL}/models/colours"]
    assert main([*command, "--shard-images", "4"]) == 0
    assert score("run", target, "--workers", "2")[:2] == (
        0,
        "3 shards with 12 images scored, 1 of them with an error; 0 done before, 0 failed\n",
    )
    assert rows_in(target).equals(rows(tmp_path / "scored"))
    assert score("check", target)[0] == 0
    # All is done; and a plan is not made twice.
    assert "3 done before" in score("run", target)[1]
    assert main(command) == 2


def test_rows_are_one_put_each(images: Path, model: Path, s3: StandIn) -> None:
    target = f"{URL}/scored"
    command = ["plan", f"{URL}/images", "--target", target, "--model", str(model)]
    assert main([*command, "--shard-images", "4"]) == 0
    s3.requests.clear()
    assert main(["run", target, "--workers", "1"]) == 0
    puts = [
        one for one in s3.requests if "/scored/rows/" in one and not one.startswith(("GET", "HEAD"))
    ]
    assert puts == [f"PUT /{BUCKET}/scored/rows/packed-{n:06}.parquet" for n in range(3)]


def test_shard_that_kills_is_counted_in_the_bucket(
    tmp_path: Path, model: Path, s3: StandIn
) -> None:
    write_images(tmp_path / "images", 12, {5: POISON})
    target = f"{URL}/scored"
    # Images on this machine, rows in the bucket.
    command = ["plan", str(tmp_path / "images"), "--target", target, "--model", str(model)]
    assert main([*command, "--shard-images", "4"]) == 0
    status, out, err = score("run", target, "--workers", "1")
    assert (status, err.count("a shard is begun 3 times")) == (3, 3)
    status, out, _ = score("check", target)
    assert (status, "packed-000001.parquet: the process ended" in out) == (3, True)


def test_store_that_is_away_ends_the_run_by_a_line(
    images: Path, model: Path, s3: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"{URL}/scored"
    command = ["plan", f"{URL}/images", "--target", target, "--model", str(model)]
    assert main([*command, "--shard-images", "4"]) == 0
    capsys.readouterr()
    s3.denies = lambda request: True
    assert main(["run", target, "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert f"at {target}" in error
    assert error.count("\n") == 1
    s3.behave()
    assert main(["run", target, "--workers", "1"]) == 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://host/folder", "expected a URL of s3://"),
        ("s3://bucket//folder", "expected a URL as s3://BUCKET/FOLDER"),
    ],
)
def test_wrong_url_is_refused(url: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", url]) == 2
    assert expected in capsys.readouterr().err

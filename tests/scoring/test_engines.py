"""The same rows by every engine, and by a server: 60 files, some of them damaged."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from convserve import Client
from convserve_scoring.folders import open_folder
from tests.bundles import COLOURS, THRESHOLDS, write_several_bundle
from tests.jpegs import jpeg_of
from tests.scoring.jobs import DAMAGED, POISON, plan, rows, score, write_images
from tests.system.conftest import ServerProcess

IMAGES = 60
#: Damaged ones, by their number.
OTHERS = {5: DAMAGED, 17: b"", 18: b"not an image", 40: jpeg_of("red")[:900]}

ENGINES = {
    "local": [["--workers", "2"]],
    "index": [["--index", "0", "--of", "2"], ["--index", "1", "--of", "2", "--workers", "1"]],
    "ray": [["--engine", "ray", "--workers", "2"]],
    "dask": [["--engine", "dask", "--workers", "2"]],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, IMAGES, OTHERS)
    return folder


@pytest.fixture(scope="module")
def loop(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The rows of a plain loop, without shards and engines."""
    from convserve_scoring.scorer import Scorer

    scorer = Scorer(model / "3" / "model.onnx", "cpu", 16, 2**26, 2**28)
    paths = sorted(images.glob("*/*.jpg"))
    found = scorer.score_block([path.read_bytes() for path in paths])
    return pa.table(
        {
            "path": [path.relative_to(images).as_posix() for path in paths],
            "label": [row.label for row in found],
            "probabilities": pa.array([row.probabilities for row in found], pa.list_(pa.float32())),
            "error": [row.error for row in found],
        }
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_are_those_of_a_plain_loop(
    engine: str, images: Path, model: Path, loop: pa.Table, tmp_path: Path
) -> None:
    target = tmp_path / "scored"
    plan(images, target, model)
    for flags in ENGINES[engine]:
        status, out, err = score("run", target, *flags, HOME=str(tmp_path))
        assert status == 0, err
    found = rows(target)
    assert found.select(loop.column_names).equals(loop)
    assert [row["path"] for row in loop.to_pylist() if row["error"]] == [
        f"{'a' if number < 30 else 'b'}/{number:04}.jpg" for number in OTHERS
    ]
    assert set(found["model"].to_pylist()) == {"colours"}
    assert set(found["version"].to_pylist()) == {3}
    assert score("check", target)[:2] == (
        0,
        "whole shards: 15 of 15; images planned: 60; rows with an error: 4\n",
    )


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_shard_that_kills_is_named_and_the_rest_is_done(
    engine: str, model: Path, tmp_path: Path
) -> None:
    images, target = tmp_path / "images", tmp_path / "scored"
    write_images(images, 24, {9: POISON})
    plan(images, target, model)
    status, out, err = score("run", target, *ENGINES[engine][0], HOME=str(tmp_path))
    assert (status, "5 shards with 20 images scored" in out) == (3, True), err
    assert "packed-000002.parquet: the process ended while it scored this shard" in out
    status, out, _ = score("check", target)
    assert (status, "whole shards: 5 of 6;" in out) == (3, True)
    assert len(list(open_folder(str(target)).files("attempts"))) == 3


@pytest.fixture
def server(model: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(model.parent)
    yield process
    process.terminate()


def test_rows_are_a_servers_answers_bit_for_bit(
    images: Path, model: Path, loop: pa.Table, server: ServerProcess
) -> None:
    # The client sends no empty file.
    asked = {path: content for path in images.glob("*/*.jpg") if (content := path.read_bytes())}
    with Client(server.wait_until_serving()) as client:
        answers = client.classify_images(list(asked.values()), model="colours")
    expected = {row["path"]: row for row in loop.to_pylist()}
    assert len(answers) == IMAGES - 1
    for path, answer in zip(asked, answers, strict=True):
        row = expected[path.relative_to(images).as_posix()]
        if answer.error is None:
            assert row["label"] == answer.label
            found = np.array(row["probabilities"], np.float32)
            assert np.array_equal(found, answer.probabilities)
        else:
            assert str(answer.error).endswith(row["error"])


def test_rows_are_typed_and_hold_the_labels(images: Path, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "scored"
    plan(images, target, model)
    assert score("run", target)[0] == 0
    schema = pq.read_schema(target / "rows" / "packed-000000.parquet")
    assert schema.metadata[b"convserve.labels"] == b'["red", "green", "blue"]'
    assert schema.field("probabilities").type == pa.list_(pa.float32())
    assert "labels" not in schema.names, "only where images have several labels"


def of_one_level(level: int) -> bytes:
    """A JPEG that is black, grey or white."""
    file = io.BytesIO()
    Image.new("RGB", (150, 150), (level, level, level)).save(file, "JPEG")
    return file.getvalue()


def test_images_with_several_labels_have_a_column_of_them(tmp_path: Path) -> None:
    model = write_several_bundle(tmp_path / "models").parents[1]
    images, target = tmp_path / "images", tmp_path / "scored"
    write_images(images, 6, {0: of_one_level(255), 1: of_one_level(0), 2: DAMAGED})
    plan(images, target, model)
    assert score("run", target)[0] == 0
    schema = pq.read_schema(target / "rows" / "packed-000000.parquet")
    assert json.loads(schema.metadata[b"convserve.thresholds"]) == list(THRESHOLDS)
    assert schema.names[-1] == "labels"
    found = rows(target).to_pylist()
    assert [row["error"] is None for row in found] == [True, True, False, True, True, True]
    counts = set()
    for row in found:
        if row["error"] is not None:
            assert row["labels"] is None
            continue
        pairs = zip(COLOURS, row["probabilities"], THRESHOLDS, strict=True)
        expected = [label for label, sure, threshold in pairs if sure >= threshold]
        assert row["labels"] == expected
        counts.add(len(expected))
    assert counts == {0, 1, 3}
    assert score("check", target)[0] == 0

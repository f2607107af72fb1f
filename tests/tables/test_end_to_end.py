"""PNG, WebP, GIF and JPEG in CSV and Parquet: trained, published, served, answered as by Keras."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convserve import Client
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets import photo_parquet, photo_reader
from convserve_trainer.datasets.pictures import Source
from tests.mixed_pictures import (
    HEIGHT,
    RECIPE,
    WIDTH,
    answers_of_keras,
    draw,
    pixels_seen,
    run,
)
from tests.system.conftest import ServerProcess

pytestmark = pytest.mark.timeout(1000)
TRAINER = "convserve_trainer.main"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One set of pictures of all formats, as set.csv and as set.parquet."""
    folder = tmp_path / "data"
    draw(folder / "train", 8, seed=1)
    draw(folder / "validation", 4, seed=2)
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        part, label, *_ = path.relative_to(folder).parts
        rows.append((path.relative_to(folder).as_posix(), label, part))
    names = ("path", "label", "split")
    with (folder / "set.csv").open("w", newline="") as text:
        csv.writer(text).writerows([names, *rows])
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    pictures = [(folder / path).read_bytes() for path in columns.pop("path")]
    table = pa.table({"image": pictures} | {name: list(values) for name, values in columns.items()})
    pq.write_table(table, folder / "set.parquet", row_group_size=16)
    return folder


@contextmanager
def _serving(models: Path) -> Iterator[str]:
    """Serves a models folder; provides the address."""
    server = ServerProcess(models, "--workers", "1")
    try:
        yield server.wait_until_serving()
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()


def _weights(path: Path) -> list[bytes]:
    graph = bundle.read(path)[0].graph
    return [onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer]


def test_every_picture_is_answered_as_keras_answers_its_pixels(data: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (tmp_path / "small.toml").write_text(RECIPE)
    for form in ("csv", "parquet"):
        printed = run(
            *(TRAINER, "fit", "photos", "--data", str(data / f"set.{form}"), "--name", form),
            *("--models", str(models), "--recipe", str(tmp_path / "small.toml")),
            *("--formats", "all"),
        )
        assert "112 photographs to train on" in printed
    assert _weights(models / "csv") == _weights(models / "parquet"), "the same pictures"
    for form in ("csv", "parquet"):
        evaluated = run(
            *(TRAINER, "evaluate", str(models / "parquet")),
            *("--data", str(data / f"set.{form}"), "--json"),
        )
        score = json.loads(evaluated)
        assert (score["total"], score["correct"]) == (56, 56)
    command = (TRAINER, "compare", str(models / "csv"), str(models / "parquet"))
    found = run(*command, "--data", str(data / "set.parquet"), "--json")
    assert json.loads(found)["both"] == 56
    run(TRAINER, "drift", str(models / "parquet"), str(data / "set.parquet"))

    rows = photo_parquet.rows(Source(data / "set.parquet"), print)
    held_out = [row.content for row in rows if row.part == "validation"]
    method = "picture-bilinear/1"
    pixels = np.stack(
        [photo_reader.read(content, HEIGHT, WIDTH, method=method) for content in held_out]
    )
    expected = answers_of_keras(models / "parquet/1/net.keras", pixels, tmp_path)
    with _serving(models) as address, Client(address) as client:
        for content, one, seen in zip(held_out, expected, pixels, strict=True):
            file = content.read_bytes()
            answer = client.classify_images(file, model="parquet")
            assert np.allclose(answer.probabilities, one, atol=1e-5), str(content)
            assert pixels_seen(address, file, "parquet") == seen.tobytes(), str(content)


def test_training_that_goes_on_knows_the_same_pictures_in_another_file(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    command = (
        *(TRAINER, "fit", "photos", "--data", str(data / "set.parquet")),
        *("--models", str(tmp_path / "models"), "--recipe", str(tmp_path / "small.toml")),
        *("--formats", "all", "--run", str(tmp_path / "run")),
    )
    run(*command, "--epochs", "2")
    # The same pictures in another file: another order of columns, other row groups, compressed.
    table = pq.read_table(data / "set.parquet").select(["split", "label", "image"])
    pq.write_table(table, data / "set.parquet", row_group_size=7, compression="zstd")
    printed = run(*command, "--epochs", "3", "--resume")
    assert "epoch 2" in printed

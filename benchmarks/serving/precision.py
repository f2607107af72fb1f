"""Measures what a precision costs and gains: file, right answers, probabilities, images a second.

    python -m benchmarks.serving.precision models/mnist models/cats-dogs --photos cats_dogs

Each bundle of float32 is converted as `convserve-train convert` does, scored on its held-out
pictures, and served on the CPU in all precisions at once by servers that take turns; each round
begins with another one. bfloat16 is measured where OpenVINO is installed and the CPU has matrix
units for it. Digits are asked as pixels, 64 a call, photographs as one JPEG a call.
Ratios are medians of the rounds', each to float32 in the same round. The table goes to standard
output as Markdown, progress to standard error.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_load_options,
    add_run_options,
    execute,
    new_parser,
    tell,
)
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.pictures import pictures
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import Cell, Measurement, grid
from convserve_bundle.contract import MANIFEST_KEY
from convserve_imaging import photos
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, PRECISION_BFLOAT16, Manifest
from convserve_server.engines import openvino
from convserve_server.engines.base import Engine, Pixels, Probabilities
from convserve_server.engines.loader import EngineOptions, load_engine
from convserve_trainer.bundles import bundle, evaluate
from convserve_trainer.cli import data_options
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.evaluation import predict
from convserve_trainer.evaluation.score import Score, score
from convserve_trainer.export import float16, int8, precisions

_PACKAGES = ("convserve", "onnx", "onnxruntime", "pygrpc-native")
_BASELINE = "float32"
_ALONE = Cell(1, 1)
_PIXELS, _FILES = Cell(4, 64), Cell(16, 1)
_MOST_PHOTOGRAPHS = 8


@dataclass(frozen=True)
class Row:
    """One net in one precision."""

    net: str
    precision: str
    file_bytes: int
    score: Score
    #: To the probabilities of float32: of all, and the mean over the pictures of each one's.
    largest_difference: float
    mean_difference: float
    #: Images a second by round: one caller with one image, and many.
    alone: Sequence[float]
    loaded: Sequence[float]
    #: To float32, medians of the rounds.
    alone_ratio: float
    loaded_ratio: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.precision", __doc__)
    add_data_options(result)
    add_load_options(result)
    add_run_options(result, rounds=7, measured="server and cell")
    return result


def add_data_options(result: argparse.ArgumentParser) -> None:
    """Adds the bundles, and where the data of their training lie."""
    result.add_argument(
        "bundles", metavar="BUNDLE", type=Path, nargs="+", help="a bundle of float32"
    )
    result.add_argument(
        "--digits", metavar="DIR", type=Path,
        help="MNIST's four files [default: the user's cache, or a download]",
    )  # fmt: skip
    result.add_argument(
        "--photos", metavar="DIR", type=Path,
        help="what bundles of photographs were trained on: a folder with train and validation",
    )  # fmt: skip


def converted(file: Path, manifest: Manifest, data: Data, folder: Path) -> dict[str, Bundle]:
    """A net in every precision but tf32, as bundles folder/PRECISION/NAME/1; float32 is the first.

    That of bfloat16 is the same file, and says so: the engine computes it.
    """
    net, _ = bundle.read(file)
    calibration = int8.sample(data.train, precisions.CALIBRATION_PICTURES, manifest.training.seed)
    nets = {
        _BASELINE: net,
        "bfloat16": net,
        "float16": float16.convert(net),
        "int8": int8.convert(net, calibration),
    }
    return {name: written(made, name, manifest, folder) for name, made in nets.items()}


def written(net: onnx.ModelProto, precision: str, manifest: Manifest, folder: Path) -> Bundle:
    """A net as the bundle folder/PRECISION/NAME/1 of a precision."""
    stated = Manifest()
    stated.CopyFrom(manifest)
    stated.precision = precisions.NAMES[precision]
    net.ClearField("metadata_props")
    net.metadata_props.add(key=MANIFEST_KEY, value=json_format.MessageToJson(stated))
    version = folder / precision / manifest.name / "1"
    version.mkdir(parents=True)
    onnx.save(net, version / "model.onnx")
    return Bundle(version / "model.onnx")


def _measured(
    net: str,
    bundles: dict[str, Bundle],
    data: Data,
    given: Sequence[bytes],
    meter: Meter,
    rounds: int,
) -> list[Row]:
    """The rows of one net; `given` are photographs, nothing for digits."""
    busy = _FILES if given else _PIXELS
    subjects = [Subject(_served(name, one), _asked(one, given)) for name, one in bundles.items()]
    with running(subjects):
        measured = list(measurements(meter, subjects, (_ALONE, busy), rounds))
    options = EngineOptions("cpu", tell=False)
    answers = {
        name: engine_answers(load_engine(one.file, options), data) for name, one in bundles.items()
    }
    exact, labels = answers[_BASELINE]
    result = []
    for name, one in bundles.items():
        difference = np.abs(answers[name][0] - exact)
        alone, loaded = (_rates(measured, name, cell) for cell in (_ALONE, busy))
        result.append(
            Row(
                net,
                name,
                one.file.stat().st_size,
                score(answers[name][0], labels),
                float(difference.max()),
                float(difference.max(axis=1).mean()),
                alone,
                loaded,
                _ratio(alone, _rates(measured, _BASELINE, _ALONE)),
                _ratio(loaded, _rates(measured, _BASELINE, busy)),
            )
        )
    return result


def engine_answers(engine: Engine, data: Data) -> predict.Answers:
    """Returns what an engine of the server says of all held-out pictures."""
    return predict.answer(partial(_in_parts, engine), data.held_out)


def _in_parts(engine: Engine, pixels: Pixels) -> Probabilities:
    most = engine.max_batch
    parts = [pixels[first : first + most] for first in range(0, len(pixels), most)]
    return np.concatenate([engine.run([part]) for part in parts])


def _served(name: str, one: Bundle) -> ServerProcess:
    native = ours(one.file)[-1]
    native.name = name
    return native


def _asked(one: Bundle, given: Sequence[bytes]) -> Questions:
    if given:
        return Questions.of_files(one, given, photos.decode)
    return Questions.of_pixels(one, _PIXELS.images)


def _rates(measured: Sequence[Measurement], server: str, cell: Cell) -> list[float]:
    return [
        one.calls_per_s * cell.images
        for one in measured
        if (one.server, one.cell) == (server, cell)
    ]


def _ratio(rates: Sequence[float], baseline: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(rates, baseline, strict=True))


def _table(rows: Sequence[Row]) -> str:
    header = (
        *("net", "precision", "file MiB", "right", "largest difference", "mean difference"),
        *("images/s, one caller", "to float32", "images/s, loaded", "to float32"),
    )
    lines = []
    for row in rows:
        cells = [row.net, row.precision, f"{row.file_bytes / 2**20:.2f}"]
        cells.append(f"{row.score.correct:,} of {row.score.total:,}")
        cells += [f"{row.largest_difference:.1e}", f"{row.mean_difference:.1e}"]
        for rates, ratio in ((row.alone, row.alone_ratio), (row.loaded, row.loaded_ratio)):
            spread = f"{min(rates):,.0f}..{max(rates):,.0f}"
            cells += [f"{statistics.median(rates):,.0f} ({spread})", f"{ratio:.2f}"]
        lines.append(cells)
    return grid(header, lines, {"net", "precision"})


def trained(path: Path, arguments: argparse.Namespace) -> tuple[Path, Manifest, Data]:
    """The file of a bundle of float32, its manifest, and the data of its training.

    Raises:
        BenchmarkError: it is of another precision.
    """
    file, manifest = evaluate.check(path)
    if precisions.name(manifest.precision) not in (_BASELINE, "tf32"):
        raise BenchmarkError(f"{file} is of {precisions.name(manifest.precision)}, not of float32")
    photographs = manifest.input.kind == IMAGE_KIND_PHOTO
    folder = arguments.photos if photographs else arguments.digits
    options = argparse.Namespace(
        data=folder, labels=None, validation_split=None, max_unreadable=None
    )
    return file, manifest, data_options.of_bundle(options, manifest, tell)


def _rows_of(path: Path, arguments: argparse.Namespace, meter: Meter) -> list[Row]:
    try:
        file, manifest, data = trained(path, arguments)
        given: Sequence[bytes] = ()
        if manifest.input.kind == IMAGE_KIND_PHOTO:
            given = pictures(arguments.photos, min(arguments.rounds, _MOST_PHOTOGRAPHS)).files
        with tempfile.TemporaryDirectory() as made:
            bundles = converted(file, manifest, data, Path(made))
            if not openvino.is_chosen("auto", PRECISION_BFLOAT16, manifest.name, tell=False):
                del bundles["bfloat16"]  # it would be float32 once more
            return _measured(manifest.name, bundles, data, given, meter, arguments.rounds)
    except USER_ERRORS as error:
        raise BenchmarkError(str(error)) from error


def run(arguments: argparse.Namespace) -> None:
    """Convert, start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: if there is no such bundle, it is not of float32, or the data cannot be
            had; and see Meter.measure and choose_driver.
    """
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    rows = [row for path in arguments.bundles for row in _rows_of(path, arguments, meter)]
    load = f"{meter.driver.name} over at most {meter.connections} connections"
    times = f"rounds x seconds: {arguments.rounds} x {arguments.seconds:g}"
    print(heading(on, "servers and load together", (load, times)), _table(rows), sep="\n\n")
    about = {"rounds": arguments.rounds, "seconds": arguments.seconds, "driver": meter.driver.name}
    write_json(arguments.json, on, about, rows=rows)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Whether pictures are like those that a net knows: by the statistics in its manifest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convserve_bundle import distributions, stability
from convserve_bundle.errors import BundleError
from convserve_imaging import MNIST_CENTRE, PIXELS
from convserve_imaging.decoders import make_decoder
from convserve_imaging.errors import PictureError
from convserve_imaging.folder_names import is_passed_over
from convserve_imaging.jpeg_pixels import MAX_DECODER_BYTES, MAX_PIXELS
from convserve_imaging.pictures import upright_size
from convserve_protos.bundle_pb2 import Distribution, InputSpec, Manifest
from convserve_trainer.bundles import evaluate
from convserve_trainer.datasets import photo_methods, photo_reader, registry
from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.pictures import ArrayPictures, Pixels, Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.unreadable_photos import reason
from convserve_trainer.errors import DataError, MissingDataError
from convserve_trainer.evaluation import predict
from convserve_trainer.evaluation.traits import Watch
from convserve_trainer.html.section import Table

_BATCH = 200  # pictures that are in memory at a time


@dataclass(frozen=True)
class Measure:
    """How far the values of pictures are from those that a net knows.

    Attributes:
        name: one of stability.MEASURES.
        known: what the manifest states.
        mean: of the pictures.
        deviation: their standard deviation.
        index: the population stability index of the two.
        by_luck: what it hardly ever reaches for pictures that are alike.
        threshold: from which on it is drift, unless luck explains it.
    """

    name: str
    known: Distribution
    mean: float
    deviation: float
    index: float
    by_luck: float
    threshold: float

    @property
    def verdict(self) -> str:
        """What it is: "drift", "some", or nothing where that may be luck."""
        if self.index < self.by_luck:
            return ""
        if self.index >= self.threshold:
            return "drift"
        return "some" if self.index >= stability.MODERATE else ""

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON."""
        return {
            "name": self.name,
            "known": {"mean": self.known.mean, "standard_deviation": self.known.standard_deviation},
            "found": {"mean": self.mean, "standard_deviation": self.deviation},
            "psi": self.index,
            "by_luck": self.by_luck,
            "threshold": self.threshold,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Drift:
    """What `find` finds.

    Attributes:
        file: model.onnx.
        pictures: that were compared.
        unreadable: that were not, with the reason, by their paths or rows.
        measures: one for each of stability.MEASURES that the manifest has.
    """

    file: Path
    pictures: int
    unreadable: dict[Content, str]
    measures: Sequence[Measure]

    @property
    def drifted(self) -> list[str]:
        """Names of the measures by which the pictures are unlike those that the net knows."""
        return [each.name for each in self.measures if each.verdict == "drift"]

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON."""
        return {
            "bundle": str(self.file),
            "pictures": self.pictures,
            "unreadable": len(self.unreadable),
            "measures": [each.as_dict() for each in self.measures],
            "drifted": self.drifted,
        }

    def __str__(self) -> str:
        rows = [
            (
                each.name,
                f"{each.known.mean:.4g} ± {each.known.standard_deviation:.3g}",
                f"{each.mean:.4g} ± {each.deviation:.3g}",
                f"{each.index:.3f}",
                f"{each.by_luck:.3f}",
                each.verdict or "–",
            )
            for each in self.measures
        ]
        head = ("measure", "the net knows", "these pictures", "PSI", "by luck up to", "verdict")
        return str(Table(head, rows, f"{self.file}: {self.pictures:,} pictures"))


def find(bundle: Path, source: Source, limit: int, threshold: float, say: Say) -> Drift:
    """Compares pictures with those that a net knows.

    Args:
        bundle: path of one, see `evaluate.check`.
        source: with a folder of picture files, in it or in folders below it; one file; or a list
            of pictures, whatever their labels.
        limit: pictures at most, evenly from all in the order of their names.
        threshold: population stability index from which on a measure has drifted.
        say: takes lines on what is done.

    Raises:
        BundleError: it is not a bundle, or has no statistics.
        DataError: there are no pictures, none can be read, or a list is not as it should be.
    """
    file, manifest = evaluate.check(bundle)
    if not manifest.statistics.HasField("brightness"):
        raise BundleError(
            f"{file}: statistics: expected those of the training's pictures, got none, because it "
            "is older than they are; convserve-train convert --precision float32 publishes it "
            "with them, from its data"
        )
    contents = _contents(source, manifest.input, say)
    if len(contents) > limit:
        chosen = np.linspace(0, len(contents) - 1, limit).round().astype(int)
        contents = [contents[n] for n in chosen]
    values, unreadable = _measured(file, manifest, contents)
    stated = manifest.statistics
    measures = [
        Measure(
            name,
            known := getattr(stated, name),
            float(values[name].mean(dtype=np.float64)),
            float(values[name].std(dtype=np.float64)),
            _index(known, values[name]),
            stability.by_luck(known.counts, len(values[name])),
            threshold,
        )
        for name in stability.MEASURES
        if name in values and stated.HasField(name)  # type: ignore[arg-type] # one of its fields
    ]
    return Drift(file, len(values["confidence"]), unreadable, measures)


def _index(known: Distribution, values: npt.NDArray[np.float32]) -> float:
    found = distributions.counted(values, known.bounds)
    return stability.stability_index(known.counts, found.tolist())


def _contents(source: Source, spec: InputSpec, say: Say) -> Sequence[Content]:
    """Returns the pictures of a list; or else the files in a folder and in those below it."""
    folder = source.folder
    assert folder is not None, "the command names it"
    lister = registry.find_lister(folder)
    if lister is not None:
        listed = [row.content for row in lister.rows(replace(source, labelled=False), say)]
        if not listed:
            raise DataError(f"{folder} lists no picture")
        return listed
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: no such file or folder")
    suffixes = set(photo_methods.suffixes(spec.resize))
    if spec.resize in (MNIST_CENTRE, PIXELS):
        suffixes.add(".png")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(map(is_passed_over, path.relative_to(folder).parts))
    )
    if not found:
        raise DataError(
            f"{folder}: expected files with pictures ({', '.join(sorted(suffixes))}), got none"
        )
    return found


def _measured(
    file: Path, manifest: Manifest, contents: Sequence[Content]
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[Content, str]]:
    """Returns the values of each measure, and why pictures cannot be read."""
    watch = Watch(partial(predict.by_onnxruntime, predict.session(file.read_bytes())))
    read = _reader(manifest.input)
    unreadable: dict[Content, str] = {}
    confidence, sizes = [], []
    for batch in _batches(contents, read, unreadable):
        confidence.append(watch(np.stack([each for each, _ in batch])).max(axis=1))
        sizes += [size for _, size in batch if size]
    if not confidence:
        content, why = next(iter(unreadable.items()))
        raise DataError(f"none of {len(contents):,} pictures can be read; {content}: {why}")
    sure = np.concatenate(confidence)
    known = np.array(sizes, np.int64) if sizes else None
    nothing = np.zeros((len(sure), 0, 0, 0), np.uint8)
    looked_at = ArrayPictures(nothing, np.zeros(len(sure), np.int64), known)
    return watch.traits(looked_at) | {"confidence": sure}, unreadable


_Read = tuple[Pixels, tuple[int, int] | None]


def _batches(
    contents: Sequence[Content],
    read: Callable[[Content], _Read],
    unreadable: dict[Content, str],
) -> Iterator[list[_Read]]:
    """Yields pictures as the net is given them, with the sizes of their files."""
    for start in range(0, len(contents), _BATCH):
        count = min(_BATCH, len(contents) - start)
        found = []
        for number, each in photo_reader.each(partial(_nth, contents, start, read), count):
            if isinstance(each, OSError | PictureError):
                unreadable[contents[start + number]] = reason(each)
            else:
                found.append(each)
        if found:
            yield found


def _nth(
    contents: Sequence[Content], start: int, read: Callable[[Content], _Read], number: int
) -> _Read:
    return read(contents[start + number])


def _reader(spec: InputSpec) -> Callable[[Content], _Read]:
    """Returns what reads a picture as a server does, by the method of the net's training."""
    shape = spec.height, spec.width, spec.channels
    decode = make_decoder(spec.resize, shape, MAX_PIXELS, MAX_DECODER_BYTES)
    has_size = spec.resize not in (MNIST_CENTRE, PIXELS)

    def read(content: Content) -> _Read:
        data = content.read_bytes()
        return decode(data), upright_size(data) if has_size else None

    return read

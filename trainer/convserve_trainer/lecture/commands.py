"""The commands convserve-train explain and convserve-train lecture."""

import argparse
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_host import atomic_file
from convserve_trainer.bundles import manifests
from convserve_trainer.lecture import topics
from convserve_trainer.lecture.progress import LectureProgress
from convserve_trainer.lecture.scales import SCALES

if TYPE_CHECKING:
    from convserve_trainer.html.section import Figure, Section
    from convserve_trainer.lecture.material import Material

PAGE = "index.html"
BUNDLE, OUT, SCALE = Path("models/mnist"), Path("lecture"), "quick"
SHOWN_VERSIONS = ("convserve", "keras", "tensorflow", "numpy", "python")

EXPLAIN = "explain one topic of the lecture on convnets, in numbers of your own net"
LECTURE = "make the lecture on convnets, measured on your own net, as one HTML page"
EXPLAIN_EXAMPLES = """examples:
  convserve-train explain shift
  convserve-train explain kernels models/mnist --photo-data cats_dogs
"""
LECTURE_EXAMPLES = """examples:
  convserve-train lecture
  convserve-train lecture models/mnist --photos models/cats-dogs --photo-data cats_dogs
"""


def add_explain_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `explain`."""
    command.add_argument(
        "topic", metavar="TOPIC", choices=topics.NAMES, help=", ".join(topics.NAMES)
    )
    _add_options(command, "the figures")


def add_lecture_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `lecture`."""
    _add_options(command, "the page and its figures")


def explain(options: argparse.Namespace) -> None:
    """Prints a topic's text and numbers, and writes its figures as SVG and PNG.

    Raises:
        TrainerError: anything a user can mend.
        OSError: the folder cannot be written to.
    """
    _, _, [section] = _sections(options, [options.topic])
    print(section)
    for figure in section.figures:
        print(f"\n{options.out / figure.name}.svg, .png: {figure.caption}", end="")
    print(flush=True)


def lecture(options: argparse.Namespace) -> None:
    """Writes the page, and its figures as SVG and PNG.

    Raises:
        TrainerError: anything a user can mend.
        OSError: the folder cannot be written to.
    """
    from convserve_trainer.html.page import About, page

    material, progress, sections = _sections(options, list(topics.NAMES))
    facts = _facts(options, material, progress.seconds)
    content = page(sections, About(_net(material), facts)).encode()
    path = options.out / PAGE
    with atomic_file.replaced(path) as temporary:
        temporary.write_bytes(content)
    print(f"{path}: {len(content):,} bytes, in {progress.seconds:.0f} s", flush=True)


def _add_options(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "bundle",
        metavar="BUNDLE",
        type=Path,
        nargs="?",
        default=BUNDLE,
        help="a net for digits: model.onnx, its version folder, or the model's folder (its newest "
        "version), with net.keras beside it [default: %(default)s]",
    )
    command.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="folder with MNIST's four files, gzip or not [default: the user's cache, or a "
        "download]",
    )
    command.add_argument(
        "--photos", metavar="BUNDLE", type=Path, help="a net for photographs [default: none]"
    )
    command.add_argument(
        "--photo-data",
        metavar="DIR",
        type=Path,
        help="photographs: a subfolder a class, or such a folder called validation [default: none]",
    )
    command.add_argument(
        "--scale",
        choices=list(SCALES),
        default=SCALE,
        help="how much is trained: quick takes minutes on two CPUs, full an hour or two "
        "[default: %(default)s]",
    )
    command.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=OUT,
        help=f"folder for {what}; what a run before left is replaced [default: %(default)s]",
    )


def _sections(
    options: argparse.Namespace, names: list[str]
) -> "tuple[Material, LectureProgress, list[Section]]":
    """Returns the sections of topics; their figures are written as soon as each is done."""
    from convserve_trainer.lecture.gather import gather
    from convserve_trainer.nets import keras_backend

    scale = SCALES[options.scale]
    material = gather(
        options.bundle, options.data, options.photos, options.photo_data, scale, _note
    )
    options.out.mkdir(parents=True, exist_ok=True)
    epochs = max(1, material.net.manifest.training.epochs)
    progress = LectureProgress(sys.stderr, names, topics.costs(scale, epochs))
    material = replace(material, done=progress.done)
    sections = []
    for name in names:
        progress.start(name)
        with keras_backend.memory_errors():
            section = topics.find(name)(material)
        for figure in section.figures:
            _write(figure, options.out)
        sections.append(section)
    return material, progress, sections


def _write(figure: "Figure", folder: Path) -> None:
    for kind, (light, _) in (("svg", figure.svg), ("png", figure.png)):
        with atomic_file.replaced(folder / f"{figure.name}.{kind}") as temporary:
            temporary.write_bytes(light)


def _net(material: "Material") -> str:
    net = material.net
    right = net.manifest.metrics.get("accuracy", 0.0)
    return (
        "A lecture on convolutional nets, whose numbers this run computed on your own: "
        f"`{net.file.parent}`, {net.model.count_params():,} parameters, {right:.2%} of the "
        "held-out digits right."
    )


def _facts(
    options: argparse.Namespace, material: "Material", seconds: float
) -> list[tuple[str, str]]:
    found = manifests.versions()
    training = material.net.manifest.training
    digest = material.sha256
    trained = "the same" if training.dataset_sha256 == digest else training.dataset_sha256
    return [
        ("command", _command(options)),
        ("net", f"{material.net.file}, recipe {training.recipe}, seed {training.seed}"),
        ("data", f"MNIST, SHA-256 {digest}; the net's: {trained}"),
        ("versions", ", ".join(f"{name} {found[name]}" for name in SHOWN_VERSIONS)),
        ("made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {seconds:.0f} s"),
    ]


def _command(options: argparse.Namespace) -> str:
    words = ["convserve-train", "lecture", str(options.bundle)]
    for name, default in (
        ("data", None),
        ("photos", None),
        ("photo_data", None),
        ("scale", SCALE),
        ("out", OUT),
    ):
        value = getattr(options, name)
        if value != default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

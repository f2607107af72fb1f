"""The command convserve-train lecture, and what explain has in common with it."""

import argparse
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_host import atomic_file
from convserve_trainer.bundles import manifests
from convserve_trainer.cli.command import Command, always, print_note
from convserve_trainer.lecture import topics
from convserve_trainer.lecture.progress import LectureProgress
from convserve_trainer.lecture.scales import SCALES

if TYPE_CHECKING:
    from convserve_trainer.html.section import Figure, Section
    from convserve_trainer.lecture.material import Material

PAGE = "index.html"
BUNDLE, OUT, SCALE = Path("models/mnist"), Path("lecture"), "quick"
SHOWN_VERSIONS = ("convserve", "keras", "tensorflow", "numpy", "python")

EPILOG = """examples:
  convserve-train lecture
  convserve-train lecture models/mnist --photos models/cats-dogs --photo-data cats_dogs
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add_shared_options(command, "the page and its figures")


def run(options: argparse.Namespace) -> None:
    """Writes the page, and its figures as SVG and PNG.

    Raises:
        TrainerError: anything a user can mend.
        OSError: the folder cannot be written to.
    """
    from convserve_trainer.html.page import About, page

    material, progress, sections = make_sections(options, list(topics.NAMES))
    facts = _facts(options, material, progress.seconds)
    content = page(sections, About(_net(material), facts)).encode()
    path = options.out / PAGE
    with atomic_file.replaced(path) as temporary:
        temporary.write_bytes(content)
    print(f"{path}: {len(content):,} bytes, in {progress.seconds:.0f} s", flush=True)


def add_shared_options(command: argparse.ArgumentParser, what: str) -> None:
    """Adds the options that say which nets and data, how much is trained, and where it goes.

    Args:
        command: that they are added to.
        what: is written.
    """
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


def make_sections(
    options: argparse.Namespace, names: list[str]
) -> "tuple[Material, LectureProgress, list[Section]]":
    """Returns the sections of topics; their figures are written as soon as each is done."""
    from convserve_trainer.lecture.gather import gather
    from convserve_trainer.nets import keras_backend

    scale = SCALES[options.scale]
    material = gather(
        options.bundle, options.data, options.photos, options.photo_data, scale, print_note
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
    for kind, content in figure.files.items():
        with atomic_file.replaced(folder / f"{figure.name}.{kind}") as temporary:
            temporary.write_bytes(content)


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


COMMAND = Command(
    "lecture",
    "make the lecture on convnets, measured on your own net, as one HTML page",
    EPILOG,
    add_options,
    run,
    always,
)

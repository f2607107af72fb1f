"""The same for photographs: train on folders of JPEGs, publish, serve, send files, stop.

    python -m examples.demo.photos [--models DIR] [--pictures DIR] [--data DIR]

CONVSERVE_PHOTOS names a folder with train/CLASS/*.jpg and validation/CLASS/*.jpg; without it the
demo makes a small set of its own in pictures/ones-and-zeros. Exits with 0 if the server, which
decodes the files, gives as many right answers as Keras did.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from convserve import Client
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.datasets import mnist
from convserve_trainer.recipes import recipe_files
from examples.demo import photo_set
from examples.demo.job import run, title
from examples.demo.model import newest, reuse, train
from examples.demo.server import serving

OWN = "ones-and-zeros"
RECIPE = "quick"
SHOWN = 3  # files of each class in the table


def main() -> int:
    """Run the demo; returns the exit status."""
    options = _options()

    def job() -> bool:
        title("Photographs")
        folder, name = photographs(options.pictures, options.data)
        title("Model")
        manifest = published(options.models, folder, name)
        title("Server")
        with serving(options.models) as address:
            print(f"convserve-serve answers on {address}")
            title("Questions")
            show(address, name, folder)
            return ask(address, name, folder, manifest)

    return run(job)


def photographs(pictures: Path, data: Path | None) -> tuple[Path, str]:
    """The folder of photographs and the name of their model; makes a set if none is given."""
    given = os.environ.get("CONVSERVE_PHOTOS")
    if given:
        folder = Path(given)
        print(f"from {folder} (CONVSERVE_PHOTOS)")
        return folder, "demo-photos"
    folder = pictures / OWN
    if folder.is_dir():
        print(f"reusing the set in {folder}")
    else:
        started = time.monotonic()
        photo_set.make(folder, mnist.load(data, print))
        count = len(photo_set.CLASSES) * (photo_set.TRAIN + photo_set.VALIDATION)
        took = time.monotonic() - started
        print(f"CONVSERVE_PHOTOS is not set: {count:,} JPEGs made in {took:.0f} s, in {folder}")
    print(f"handwritten digits in coloured scenes; classes {', '.join(photo_set.CLASSES)}")
    return folder, OWN


def published(models: Path, folder: Path, name: str) -> Manifest:
    """The manifest of the newest model of these photographs; trains one if there is no good one."""
    manifest = newest(models, name)
    own = name == OWN
    if own and manifest.metrics["accuracy"] >= recipe_files.find(RECIPE, "photos").min_accuracy:
        reuse(models, name, manifest)
        return manifest
    arguments = ["photos", "--recipe", RECIPE, "--data", str(folder)]
    # Of photographs that we do not know we ask nothing.
    arguments += [] if own else ["--min-accuracy", "0"]
    return train(models, name, arguments)


def show(address: str, name: str, folder: Path) -> None:
    """Ask about a few files with the command, as a user does."""
    held_out = folder / "validation"
    files = [
        str(file.relative_to(held_out))
        for class_ in sorted(held_out.iterdir())
        for file in sorted(class_.glob("*.jp*g"))[:SHOWN]
    ]
    command = ["classify", *files, "--server", address, "--model", name]
    print(f"in {held_out}: convserve {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "convserve.main", *command], cwd=held_out, check=True)


def ask(address: str, name: str, folder: Path, manifest: Manifest) -> bool:
    """Send all held-out files; returns whether the server was right as often as Keras."""
    labels = list(manifest.labels)
    files: list[tuple[Path, str]] = [
        (file, label)
        for label in labels
        for file in sorted((folder / "validation" / label).iterdir())
        if file.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif")
    ]
    start = time.monotonic()
    with Client(address, model=name, timeout=600, max_images_per_call=1) as client:
        answers = client.classify_images([file.read_bytes() for file, _ in files])
    elapsed = time.monotonic() - start
    print(
        f"\nall {len(files):,} held-out files, one a call, several calls in flight: "
        f"{elapsed:.2f} s, {len(files) / elapsed:,.0f} photographs/s"
    )
    answered = [
        (answers[index].label, label)
        for index, (_, label) in enumerate(files)
        if index not in answers.errors
    ]
    return _compare(answered, manifest)


def _compare(answered: Sequence[tuple[str, str]], manifest: Manifest) -> bool:
    title("Result")
    by_server = sum(found == label for found, label in answered)
    by_keras, total = (round(manifest.metrics[key]) for key in ("keras_correct", "total"))
    print(f"right answers, Keras    {by_keras:6,} of {total:,}")
    print(
        f"right answers, server   {by_server:6,} of {len(answered):,} "
        f"({by_server / len(answered):.2%})"
    )
    return by_server == by_keras and len(answered) == total


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR")
    parser.add_argument("--pictures", type=Path, default=Path("pictures"), metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the four files of MNIST")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

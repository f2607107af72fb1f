"""The whole job on real data: train, publish, serve, ask 10,000 questions, stop.

    python -m examples.demo.digits [--models DIR] [--pictures DIR] [--data DIR] [--limit N]

Leaves a held-out digit of each kind as a PNG in pictures/digits, for README's examples. Exits with
0 if the server gives as many right answers as Keras did on the same digits.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convserve import Classification, Client
from convserve.command.terminal import draw_bar, draw_digit
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.datasets import mnist
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.recipes import recipe_files
from examples.demo.job import run, title
from examples.demo.model import newest, reuse, train
from examples.demo.server import serving

NAME, RECIPE = "mnist", "lecture"
SINGLE_CALLS = 2000
DRAWN = 3


def main() -> int:
    """Run the demo; returns the exit status."""
    options = _options()

    def job() -> bool:
        title("Model")
        manifest = published(options.models, options.data, options.limit)
        title("Server")
        dataset = mnist.load(options.data)
        leave(options.pictures / "digits", dataset)
        with serving(options.models) as address:
            print(f"convserve-serve answers on {address}")
            title("Questions")
            return ask(address, dataset, manifest)

    return run(job)


def published(models: Path, data: Path | None, limit: int | None) -> Manifest:
    """The manifest of the newest digit model; trains and publishes one if there is no good one."""
    manifest = newest(models, NAME)
    floor = recipe_files.find(RECIPE, "digits").min_accuracy
    if manifest.metrics["accuracy"] >= floor or (limit and manifest.name):
        reuse(models, NAME, manifest)
        return manifest
    arguments = ["digits", "--recipe", RECIPE]
    arguments += ["--data", str(data)] if data else []
    arguments += ["--limit", str(limit)] if limit else []
    return train(models, NAME, arguments)


def leave(folder: Path, dataset: Dataset) -> None:
    """Writes 0.png to 9.png: the first held-out digit of each kind, 28 x 28 grey, as it is.

    Raises:
        OSError: They cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for label in np.unique(dataset.test_labels):
        first = np.flatnonzero(dataset.test_labels == label)[0]
        Image.fromarray(dataset.test_images[first, :, :, 0]).save(folder / f"{label}.png")


def ask(address: str, dataset: Dataset, manifest: Manifest) -> bool:
    """Ask the server about all held-out digits; returns whether it was right as often as Keras."""
    digits, labels = dataset.test_images, dataset.test_labels
    with Client(address, model=NAME, timeout=120) as client:
        start = time.monotonic()
        answers = client.classify(digits)
        elapsed = time.monotonic() - start
        calls = answers.timings.calls
        print(
            f"{len(digits):,} digits in {calls} calls of up to 64: {elapsed:.2f} s, "
            f"{calls / elapsed:,.0f} calls/s, {len(digits) / elapsed:,.0f} digits/s"
        )
        start = time.monotonic()
        singly = [client.classify(digit).label for digit in digits[:SINGLE_CALLS]]
        elapsed = time.monotonic() - start
        print(
            f"{SINGLE_CALLS:,} digits one by one, each after the answer to the last: "
            f"{elapsed:.2f} s, {SINGLE_CALLS / elapsed:,.0f} calls/s"
        )
    right = answers.indices == labels
    _draw(digits, labels, answers, right)

    by_server, by_keras = int(right.sum()), round(manifest.metrics["keras_correct"])
    together = [answers.labels[index] for index in answers.indices[:SINGLE_CALLS]]
    differing = sum(one != other for one, other in zip(singly, together, strict=True))
    title("Result")
    print(f"right answers, Keras    {by_keras:6,} of {len(labels):,}")
    print(
        f"right answers, server   {by_server:6,} of {len(labels):,} ({by_server / len(labels):.2%})"
    )
    print(f"asked singly, different {differing:6,} of {SINGLE_CALLS:,}")
    return by_server == by_keras and not differing


def _draw(
    digits: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    answers: Classification,
    right: NDArray[np.bool_],
) -> None:
    """Draw some digits that were answered right, and as many that were not."""
    for what, which in (("right", right), ("wrong", ~right)):
        chosen = np.flatnonzero(which)[:DRAWN]
        if not len(chosen):
            continue
        print(f"\nSome of the {which.sum():,} answered {what}:\n")
        colour = sys.stdout.isatty()
        drawings = [draw_digit(digits[index], colour=colour).splitlines() for index in chosen]
        for lines in zip(*drawings, strict=True):
            print("   ".join(lines))
        captions = [
            f"it is {labels[index]}; answer {answers[index].label} "
            f"({answers[index].probability:.1%})".ljust(28)
            for index in chosen
        ]
        print("   ".join(captions))
        print("   ".join(draw_bar(answers[index].probability).ljust(28) for index in chosen))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR")
    parser.add_argument("--pictures", type=Path, default=Path("pictures"), metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the four files of MNIST")
    parser.add_argument("--limit", type=int, metavar="N", help="train on N digits only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

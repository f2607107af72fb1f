"""Draws pictures that have several labels: which of five shapes are on each.

python examples/shapes/make_shapes.py shapes --pictures 4000

A picture has none to three of the shapes, in colours and positions that tell nothing of which.
shapes/shapes.csv lists them: the path, the labels with | between them, and the part.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "ring", "square", "triangle")
SIZE = 64  # pixels, both sides
MOST = 3  # shapes of a picture
TRAINED_ON = 0.8  # share of the pictures


def draw(drawing: ImageDraw.ImageDraw, shape: str, random: np.random.Generator) -> None:
    """Draws a shape anywhere."""
    radius = int(random.integers(7, 11))
    x, y = (int(each) for each in random.integers(radius + 1, SIZE - radius - 1, 2))
    colour = tuple(int(each) for each in random.integers(140, 256, 3))
    box = (x - radius, y - radius, x + radius, y + radius)
    match shape:
        case "circle":
            drawing.ellipse(box, fill=colour)
        case "cross":
            drawing.line((x - radius, y, x + radius, y), fill=colour, width=4)
            drawing.line((x, y - radius, x, y + radius), fill=colour, width=4)
        case "ring":
            drawing.ellipse(box, outline=colour, width=3)
        case "square":
            drawing.rectangle(box, fill=colour)
        case "triangle":
            corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
            drawing.polygon(corners, fill=colour)


def make(folder: Path, pictures: int, seed: int) -> None:
    """Writes the pictures, half of them PNG, and the file that lists them."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(pictures):
        ground = tuple(int(each) for each in random.integers(0, 90, 3))
        picture = Image.new("RGB", (SIZE, SIZE), ground)
        count = int(random.integers(0, MOST + 1))
        shapes = sorted(random.choice(SHAPES, count, replace=False).tolist())
        for shape in shapes:
            draw(ImageDraw.Draw(picture), shape, random)
        name = f"{number:05}.{'jpg' if number % 2 else 'png'}"
        picture.save(folder / name)
        part = "train" if number < TRAINED_ON * pictures else "validation"
        rows.append((name, "|".join(shapes), part))
    with (folder / "shapes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "labels", "split"))
        writer.writerows(rows)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="draw pictures that have several labels")
    parser.add_argument("folder", type=Path, help="that the pictures and shapes.csv go to")
    parser.add_argument("--pictures", type=int, default=4000, help="how many [default: 4000]")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn [default: 1]")
    options = parser.parse_args()
    make(options.folder, options.pictures, options.seed)


if __name__ == "__main__":
    main()

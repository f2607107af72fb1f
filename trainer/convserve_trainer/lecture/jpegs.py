"""JPEG images: generators that read them batch by batch, a sample, and a training."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Listing, Part, Section
from convserve_trainer.lecture import code, trials
from convserve_trainer.lecture.material import Material, Photographs
from convserve_trainer.lecture.net import Net
from convserve_trainer.report import plot
from convserve_trainer.runs.history import Epoch, History, read_csv
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

TOPIC = "jpegs"
BATCH, ACROSS = 20, 5
VALUES = 8  # of the sample that are printed

GENERATORS = """train = keras.utils.image_dataset_from_directory(
    "cats_dogs/train", image_size=({height}, {width}), batch_size={batch}, label_mode="{mode}"
)
validation = keras.utils.image_dataset_from_directory(
    "cats_dogs/validation", image_size=({height}, {width}), batch_size={batch}, label_mode="{mode}"
)
pixels, labels = next(iter(train))"""


def make_section(material: Material) -> Section:
    """Returns the section."""
    photographs, photo_net = material.photographs, material.photo_net
    height, width = (150, 150) if photographs is None else photographs.pixels.shape[1:3]
    mode = "binary" if photographs is None or len(photographs.names) == 2 else "categorical"
    parts: list[Part] = [
        "MNIST fits into memory as arrays. Photographs lie as JPEG files in a folder for each "
        "class, of all sizes. A generator reads them as they are needed: it decodes a batch, "
        "brings each picture to one size, and gives them out with their labels, again and again.",
        Listing(
            GENERATORS.format(height=height, width=width, batch=BATCH, mode=mode),
            "Generators in Keras: one for the pictures to train on, one for those to validate "
            "with. The values are 0 to 255; the net divides them by 255.",
        ),
    ]
    if photographs is None:
        parts.append("A sample of your own: name a folder of photographs with `--photo-data DIR`.")
    else:
        parts += _sample(photographs)
    material.done(0.5, "batch sampled")
    parts += (
        ["A training of your own: name its net with `--photos BUNDLE`."]
        if photo_net is None
        else _training(photo_net)
    )
    return Section(TOPIC, "JPEG images", parts)


def _sample(photographs: Photographs) -> list[Part]:
    order = np.random.default_rng(0).permutation(len(photographs.labels))[:BATCH]
    pixels, labels = photographs.pixels[order], photographs.labels[order]
    first = " ".join(map(str, pixels.ravel()[:VALUES].tolist()))
    shown = " ".join(map(str, labels.tolist()))
    text = (
        f"pixels  {pixels.dtype} [{', '.join(map(str, pixels.shape))}]  {first} ...\n"
        f"labels  {labels.dtype} [{len(labels)}]  {shown}"
    )
    names = ", ".join(f"{number} is {name}" for number, name in enumerate(photographs.names))
    return [
        Listing(text, f"One batch of your held-out photographs; of the labels {names}."),
        _pictures(pixels, [photographs.names[int(label)] for label in labels]),
    ]


def _pictures(pixels: "np.typing.NDArray[np.uint8]", names: list[str]) -> Figure:
    rows = -(-len(names) // ACROSS)

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        grid = drawing.subplots(rows, ACROSS, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, picture, name in zip(grid.flat, pixels, names, strict=False):
            figures.picture(axes, picture, name)

    size = " x ".join(map(str, pixels.shape[1:3]))
    return figures.draw(
        "jpegs-batch",
        1.35 * rows,
        paint,
        alt=f"The {counted(len(names), 'photograph')} of the batch with their classes: "
        + ", ".join(names),
        caption=f"The batch as pictures, each brought to {size} pixels, whatever its proportions.",
        photographic=True,
    )


def _training(net: Net) -> list[Part]:
    recipe, metrics = trials.recipe(net), net.manifest.metrics
    parts: list[Part] = [
        Listing(
            code.training_code(recipe)
            .replace("train_images, train_labels", "train")
            .replace(f", batch_size={recipe.batch_size}", ", validation_data=validation")
            + (
                f"  # validation_steps={recipe.validation_steps}" if recipe.validation_steps else ""
            ),
            f"The training of your net for photographs, by its recipe {recipe.name}"
            + code.left_out(recipe),
        ),
        f"It has {metrics['accuracy']:.1%} of {int(metrics['total']):,} held-out photographs "
        f"right, at a loss of {metrics['loss']:.4f}.",
    ]
    if epochs := _epochs(net.file.parent):
        parts += [_description(epochs), _history(History(epochs))]
    return parts


def _epochs(version: Path) -> list[Epoch]:
    """Returns the history beside a bundle; none where there is none that can be read."""
    try:
        return read_csv((version / "history.csv").read_text())
    except (OSError, ValueError):
        return []


def _description(epochs: list[Epoch]) -> str:
    best, last = History(epochs).best, epochs[-1]
    text = (
        f"After {counted(len(epochs), 'epoch')} {last.accuracy:.1%} of the pictures that are "
        "trained on are right"
    )
    if last.val_accuracy is None or best.val_loss is None:
        return text + "."
    text += f", and {last.val_accuracy:.1%} of those it is validated with"
    if best is not last and last.val_loss is not None and last.val_loss > best.val_loss:
        return (
            f"{text}. Their loss was lowest after epoch {best.epoch}, {best.val_loss:.4f}, and "
            f"rose to {last.val_loss:.4f}: from there on the net learned its own pictures by heart "
            f"(overfitting). The weights of epoch {best.epoch} are published."
        )
    return text + "."


def _history(history: History) -> Figure:
    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        losses, accuracies = drawing.subplots(2, 1)
        plot.panels(losses, accuracies, history, plot.Colours(ink.first, ink.second, ink.faint))

    return figures.draw(
        "jpegs-training",
        5.6,
        paint,
        alt="Loss and accuracy of the net for photographs, epoch by epoch, on the pictures that "
        "are trained on and on those for validation.",
        caption="The training of your net for photographs, epoch by epoch.",
    )

"""The training in code: labels as one-hot rows, compile, fit, and what came of it."""

import numpy as np

from convserve_trainer.html.section import Listing, Part, Section, Table
from convserve_trainer.lecture import code, trials
from convserve_trainer.lecture.material import Material
from convserve_trainer.nets import keras_backend

TOPIC = "training"
SHOWN = 5  # labels
#: What the lecture printed for its own run of this net: loss and accuracy on MNIST's test digits.
LECTURES = (0.03167136, 0.9902)

PREPARED = """(train_images, train_labels), (test_images, test_labels) = mnist
train_images = train_images.reshape(60_000, 28, 28, 1)   # a channel, as a photograph has three
test_images = test_images.reshape(10_000, 28, 28, 1)
train_labels = keras.utils.to_categorical(train_labels)  # one-hot
test_labels = keras.utils.to_categorical(test_labels)"""


def make_section(material: Material) -> Section:
    """Returns the section."""
    recipe, metrics = trials.recipe(material.net), material.net.manifest.metrics
    keras = keras_backend.load()
    labels = material.digits.train_labels[:SHOWN].astype(np.int64)
    rows = keras.utils.to_categorical(labels, len(material.net.manifest.labels))
    whole = code.net_code(material.net.model)
    loss, accuracy = LECTURES
    parts: list[Part] = [
        "A net with a softmax puts out one number for each class. So that its answer can be "
        "compared with the label, the label becomes such a row, too: a 1 in the place of its class "
        "and 0 in all others, one-hot. `to_categorical` makes it.",
        Table(
            ("label", *map(str, range(rows.shape[1]))),
            [
                (str(label), *(f"{value:g}" for value in row))
                for label, row in zip(labels, rows, strict=True)
            ],
            f"The first {len(labels)} labels of the digits that are trained on, one-hot",
        ),
        Listing(PREPARED, "Pictures and labels as the net expects them; the net divides by 255."),
        "The categorical cross-entropy is then minus the logarithm of the probability that the net "
        "gave to the right class: 0 where it was sure and right. The optimizer lowers its mean "
        "over a batch, step by step.",
        *([Listing(whole, "Your net, whole")] if whole else []),
        Listing(
            code.training_code(recipe),
            f"Its training by the recipe {recipe.name}" + code.left_out(recipe),
        ),
        "Evaluated on digits that it was never trained on, by "
        "`net.evaluate(test_images, test_labels)`:",
        Table(
            ("net", "loss", "accuracy"),
            [
                ("yours", f"{metrics['loss']:.4f}", f"{metrics['accuracy']:.4f}"),
                ("the lecture's", f"{loss:.4f}", f"{accuracy:.4f}"),
            ],
            "Loss and accuracy on the held-out digits",
        ),
        f"The accuracies differ by {abs(metrics['accuracy'] - accuracy):.4f}. How much of that is "
        "the luck of the weights at the start, `convserve-train fit digits --seeds 5` measures.",
    ]
    material.done(1.0, "training explained")
    return Section(TOPIC, "Training, in code", parts)

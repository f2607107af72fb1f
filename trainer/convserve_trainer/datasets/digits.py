"""MNIST as the data of a training."""

from convserve_imaging import MNIST_CENTRE
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, InputSpec
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.datasets.pictures import ArrayPictures, Data

LABELS = tuple(str(digit) for digit in range(10))


def data(dataset: Dataset) -> Data:
    """Returns the digits of MNIST, uint8 [N, 28, 28, 1], 60,000 or less and 10,000 held out."""
    return Data(
        what="digits",
        labels=LABELS,
        spec=InputSpec(
            height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS, resize=MNIST_CENTRE
        ),
        train=ArrayPictures(dataset.train_images, dataset.train_labels),
        held_out=ArrayPictures(dataset.test_images, dataset.test_labels),
        sha256=dataset.sha256(),
    )

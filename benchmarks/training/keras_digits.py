"""The lecture's digits as a Keras user writes them: the baseline of benchmarks.training.

    python benchmarks/training/keras_digits.py MNIST EPOCHS

A line "epoch finished" is added after each epoch and one with the accuracy at the end.

Source: Chollet, "Deep Learning with Python", chapter on convnets.
"""

import gzip
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers
from keras.utils import to_categorical


def _read(folder: Path, name: str, header: int) -> np.ndarray:
    path = folder / name
    packed = path.with_name(f"{name}.gz")
    data = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    return np.frombuffer(data, np.uint8, offset=header)


def main() -> None:
    """Trains and evaluates."""
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    train_images = _read(folder, "train-images-idx3-ubyte", 16)
    train_images = train_images.reshape((60000, 28, 28, 1)).astype("float32") / 255
    train_labels = to_categorical(_read(folder, "train-labels-idx1-ubyte", 8))
    test_images = _read(folder, "t10k-images-idx3-ubyte", 16)
    test_images = test_images.reshape((10000, 28, 28, 1)).astype("float32") / 255
    test_labels = to_categorical(_read(folder, "t10k-labels-idx1-ubyte", 8))

    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
    marker = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print("\nepoch finished", flush=True)
    )
    model.fit(train_images, train_labels, epochs=epochs, batch_size=64, callbacks=[marker])
    _, accuracy = model.evaluate(test_images, test_labels)
    print(f"\naccuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()

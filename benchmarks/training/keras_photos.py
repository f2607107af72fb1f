"""The lecture's photographs as a Keras user writes them today: a baseline of benchmarks.training.

    python benchmarks/training/keras_photos.py FOLDER EPOCHS STEPS

A line "epoch finished" is added after each epoch and one with the accuracy at the end.

Source: Chollet, "Deep Learning with Python", chapter on convnets with little data; and
https://keras.io/api/data_loading/image/ for what replaced its generators.
"""

import sys
from pathlib import Path

import keras
from keras import layers
from keras.utils import image_dataset_from_directory


def main() -> None:
    """Trains and evaluates."""
    folder, epochs, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    train, validation = (
        image_dataset_from_directory(
            folder / part, label_mode="binary", image_size=(150, 150), batch_size=20
        )
        for part in ("train", "validation")
    )
    model = keras.Sequential(
        [
            layers.Input((150, 150, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(128, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(128, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    optimizer = keras.optimizers.RMSprop(learning_rate=1e-4)
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    marker = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print("\nepoch finished", flush=True)
    )
    model.fit(
        train.repeat(),
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        validation_steps=1,
        callbacks=[marker],
    )
    _, accuracy = model.evaluate(validation)
    print(f"\naccuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()

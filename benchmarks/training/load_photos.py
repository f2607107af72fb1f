"""Loads photographs as a training does, and streams batches of them to nobody.

Usage: load_photos.py DIR CACHE BATCHES, with a folder that has train and validation. It prints the
lines by which `large_sets` knows the phases of a training, and the time of a batch.
"""

import sys
import time
from pathlib import Path

from convserve_trainer.datasets import photos
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.fitting import order

SIZE, BATCH = 150, 20  # of the lecture's net


def main() -> None:
    """Loads and streams."""
    folder, cache, batches = sys.argv[1:]
    data = photos.load(Source(Path(folder), SIZE, SIZE, cache=cache), None, print)
    print("epoch     loss: the first step is next", flush=True)
    numbers = order.epoch_order(len(data.train), BATCH, None, 1, 0)
    begun = time.perf_counter()
    count = sum(1 for _ in data.train.batches(numbers, BATCH, int(batches)))
    print(f"ms a batch {(time.perf_counter() - begun) / count * 1e3:.2f}", flush=True)
    print("input took all of the time", flush=True)
    held_out = data.held_out
    for _ in held_out.batches(range(len(held_out)), BATCH):
        pass


if __name__ == "__main__":
    main()

"""Nets that teach others."""

from pathlib import Path

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.nets import keras_file, models
from convserve_trainer.recipes import recipe_files

NET = [{"layer": "conv", "filters": 3, "stride": 2}, {"layer": "flatten"}]
PLAIN = recipe_files.find("lecture", "digits").override(
    {"net": NET, "optimizer": "sgd", "learning_rate": 0.1}
)


def teacher(folder: Path, spec: InputSpec, classes: int, seed: int = 5) -> Path:
    """Returns the file of a net, as `net.keras` lies beside a bundle; its weights are drawn."""
    recipe = PLAIN.override(seed=seed)
    net = models.build(recipe, spec, classes, pictures=6)
    path = folder / f"teacher-{seed}-{classes}.keras"
    path.write_bytes(keras_file.content(models.for_inference(net, recipe, spec)))
    return path

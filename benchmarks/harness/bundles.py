"""The models that are measured."""

import shutil
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.harness.command import BenchmarkError
from convserve_bundle.folder import list_bundles
from convserve_bundle.manifest import read_manifest
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO


class Bundle:
    """A model file NAME/VERSION/model.onnx, run by ONNX Runtime on the CPU.

    Attributes:
        file: the model file.
        model: its name.
        version: its version.
        shape: of an image, (H, W, C).
        manifest: what it says of itself.
    """

    def __init__(self, file: Path) -> None:
        self._session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.file = file
        self.model = file.parent.parent.name
        self.version = int(file.parent.name)
        height, width, channels = self._session.get_inputs()[0].shape[1:]
        self.shape = (int(height), int(width), int(channels))
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.manifest = read_manifest(metadata)

    @classmethod
    def newest(cls, models: Path, model: str) -> Self:
        """The newest version of a model.

        Raises:
            BenchmarkError: if there is none.
        """
        versions = _versions(models).get(model)
        if versions is None:
            raise BenchmarkError(f"there is no bundle in {models / model}; run make demo first")
        return cls(versions[max(versions)])

    @classmethod
    def newest_of_photos(cls, models: Path, model: str | None) -> Self:
        """The newest version of a model of photographs, by default of the first by name.

        Raises:
            BenchmarkError: if there is none.
        """
        for name in sorted(_versions(models)) if model is None else [model]:
            found = cls.newest(models, name)
            if found.manifest.input.kind == IMAGE_KIND_PHOTO:
                return found
        where, got = (models, "none") if model is None else (models / model, "another one")
        raise BenchmarkError(
            f"{where}: expected a model of photographs, got {got}; "
            "run convserve-train fit photos or make demo first"
        )

    def copy_to(self, models: Path) -> "Bundle":
        """A copy of the model file as version 1, for servers that are to have no other model."""
        folder = models / self.model / "1"
        folder.mkdir(parents=True)
        return Bundle(Path(shutil.copy(self.file, folder / self.file.name)))

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What ONNX Runtime answers: float32 [N, K] for uint8 [N, H, W, C]."""
        rows: NDArray[np.float32]
        (rows,) = self._session.run(["probabilities"], {"pixels": pixels})
        return rows


def _versions(models: Path) -> dict[str, dict[int, Path]]:
    return list_bundles(models).bundles if models.is_dir() else {}

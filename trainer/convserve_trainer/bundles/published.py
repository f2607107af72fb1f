"""Where a net is published, and whether one was already, as a training would make it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

from convserve_bundle import publish as folders
from convserve_bundle.contract import MODEL_FILE
from convserve_bundle.errors import BundleError
from convserve_bundle.folder import list_versions
from convserve_bundle.signing import Signer
from convserve_host import os_errors
from convserve_protos.bundle_pb2 import Manifest
from convserve_store.bundles import BundleStore
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.export import precisions
from convserve_trainer.export.conversion import ExportOptions
from convserve_trainer.nets.keras_backend import DEFAULT, Backend
from convserve_trainer.nets.origin import Origin
from convserve_trainer.recipes.recipe import Recipe


class PublishTarget(NamedTuple):
    """Where a net is published.

    Attributes:
        models: the models folder; with a store, the one in which trainings are kept until then.
        name: of the model.
        version: None for the next free one.
        signer: who signs it; None for nobody.
        store: of all models, on object storage; None: it is published into the folder.
    """

    models: Path
    name: str
    version: int | None = None
    signer: Signer | None = None
    store: BundleStore | None = None

    def shown(self, version: Path) -> str:
        """Returns what messages call a version that `find` has returned."""
        if self.store is None:
            return str(version / MODEL_FILE)
        return str(self.store.where.child(self.name, version.name))

    def check(self) -> None:
        """Checks, before the work is done, that a bundle could be published.

        Raises:
            SigningError: the signer's key cannot be used.
            PublishError: the version exists or is not valid, or nothing can be written there.
        """
        if self.store is not None:
            self.store.check_target(self.name, self.version, self.signer)
        else:
            folders.check_target(self.models, self.name, self.version, self.signer)

    def publish(
        self,
        model: bytes,
        extra_files: Mapping[str, bytes] = MappingProxyType({}),
        numbered_files: Mapping[str, Callable[[int], bytes]] = MappingProxyType({}),
    ) -> str:
        """Publishes a bundle; see convserve_bundle.publish.

        Returns:
            The path of its model.onnx, or the URL of its version.
        """
        if self.store is not None:
            return self.store.publish(
                model, self.name, self.version, self.signer, extra_files, numbered_files
            )
        rest = self.version, self.signer, extra_files, numbered_files
        return str(folders.publish(model, self.models, self.name, *rest))

    def find(self, scratch: Callable[[], Path]) -> Path | None:
        """Returns the folder of the version that a training is compared with; None without one.

        Args:
            scratch: returns an empty folder for what is read from a store.

        Raises:
            StoreError: the store refuses or cannot be reached.
            BundleError: the version is not what its digests say.
        """
        if self.store is None:
            return find(self.models / self.name, self.version)
        listing = self.store.look()
        versions = listing.versions.get(self.name, {})
        number = max(versions, default=None) if self.version is None else self.version
        if number not in versions:
            return None
        folder = scratch() / str(number)
        folder.mkdir()
        self.store.fetch(versions[number], folder, _MOST_BYTES, listing)
        return folder


#: Of a version that is read to be compared, bytes.
_MOST_BYTES = 2**33


def find(folder: Path, version: int | None) -> Path | None:
    """Returns the version of a model that a training is compared with; None if there is none.

    Args:
        folder: of the model.
        version: None for the newest one.
    """
    number = max(list_versions(folder), default=None) if version is None else version
    found = folder / str(number)
    return found if number is not None and found.exists() else None


def is_published(
    version: Path,
    recipe: Recipe,
    data: Data,
    options: ExportOptions,
    seeds: int,
    backend: Backend,
    out: TextIO,
    shown: str = "",
    origins: Sequence[Origin] = (),
) -> bool:
    """Returns whether a version is what a training would make, and prints why or why not.

    See `differences` for the arguments; `out` takes the line, which calls the version `shown`.
    """
    file = shown or str(version / MODEL_FILE)
    try:
        differing = differences(version, recipe, data, options, seeds, backend, origins)
    except (BundleError, OSError) as error:
        why = os_errors.described(error) if isinstance(error, OSError) else error
        print(f"what is published already cannot be read: {why}", file=out, flush=True)
        return False
    if differing:
        print(f"{file} differs from this training in: {', '.join(differing)}", file=out, flush=True)
        return False
    print(f"{file} is published already, from these settings and data", file=out, flush=True)
    return True


def differences(
    version: Path,
    recipe: Recipe,
    data: Data,
    options: ExportOptions,
    seeds: int = 1,
    backend: Backend = DEFAULT,
    origins: Sequence[Origin] = (),
) -> list[str]:
    """Returns in what a version differs from what a training would make; nothing if it is that.

    Args:
        version: its folder.
        recipe: with all overrides, for the classes of the data.
        data: that the training would use.
        options: the precision that it would publish in, and how it is made.
        seeds: how many it would train.
        backend: of Keras, that it would use.
        origins: of the weights that it would begin with.

    Raises:
        BundleError: the version cannot be read.
    """
    manifest = bundle.read_manifest(version / MODEL_FILE)
    try:
        differing = _settings(manifest, recipe)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{version / MODEL_FILE}: damaged recipe: {error}") from error
    if (manifest.training.backend or DEFAULT) != backend:
        differing.append("backend")
    # The same content may be at another path.
    if [each.sha256 for each in manifest.training.origins] != [each.sha256 for each in origins]:
        differing.append("what the net begins with")
    if manifest.training.dataset_sha256 != data.sha256:
        differing.append("data")
    elif list(manifest.labels) != list(data.labels) or manifest.input != data.spec:
        differing.append("labels or input")
    if precisions.read_precision(manifest.precision) != options.precision:
        differing.append("precision")
    elif manifest.training.calibration_pictures != options.calibrated_on(data):
        differing.append("calibration pictures")
    if manifest.metrics.get("seeds", 1) != seeds:
        differing.append("seeds")
    if not manifest.metrics["accuracy"] >= recipe.min_accuracy:
        differing.append("accuracy floor")
    return differing


def _settings(manifest: Manifest, recipe: Recipe) -> list[str]:
    """Returns the names of the settings that differ, but for those that change no net."""
    same: dict[str, Any] = {"about": "", "min_accuracy": 0.0, "card": {}, "start_from": None}
    found = dict(json.loads(manifest.training.recipe_json)) | same
    wanted = recipe.values() | same
    names = [*wanted, *(name for name in found if name not in wanted)]
    missing = object()
    return [name for name in names if found.get(name, missing) != wanted.get(name, missing)]

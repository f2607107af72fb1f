"""The model of a scoring: found once, copied into the target folder, and checked by every worker.

So workers need no models folder, and a version that is published meanwhile changes nothing.
"""

import tempfile
from pathlib import Path

from convserve_bundle.contract import MODEL_FILE, NAME_RULE, is_name, is_version
from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle
from convserve_bundle.held_model import HeldModel, digest_of_held, hold
from convserve_scoring.errors import InputError, ScoringError
from convserve_scoring.folders import Folder
from convserve_scoring.plan import Plan, PlannedModel
from convserve_store.errors import StoreError
from convserve_store.location import is_url

#: Most bytes of a model: it is in the memory of every worker.
_MAX_BYTES = 2**32


def find(url: str) -> tuple[PlannedModel, HeldModel]:
    """Returns a model, still without its labels, and what its files hold.

    Args:
        url: path or URL of a version's folder, or of a model's folder, whose newest version is
            meant; or path of a version's model.onnx.

    Raises:
        InputError: no bundle is there, or not in the layout NAME/VERSION/model.onnx.
        ScoringError: the store cannot be read.
        BundleError: it is not an ONNX file, or has data outside its folder.
        OSError: it cannot be read.
    """
    if is_url(url):
        with tempfile.TemporaryDirectory() as scratch:
            return _held(_fetched(url, Path(scratch)))
    # Of "." or "models/photos/.." the name of the model is not to be seen.
    path = Path(url).resolve()
    try:
        return _held(find_bundle(path))
    except BundleError as error:
        raise InputError(f"model: {error}") from error


def copy(target: Folder, planned: PlannedModel, held: HeldModel) -> None:
    """Writes the files of a model into the target folder.

    Raises:
        OSError: they cannot be written.
    """
    for location, content in held.external.items():
        target.write(_file(planned, location), content)
    target.write(_file(planned, MODEL_FILE), held.content)


def read(target: Folder, plan: Plan) -> HeldModel:
    """Returns the model of a plan, read from the target folder.

    Raises:
        InputError: it is not there, or another one.
        OSError: it cannot be read.
    """
    planned = plan.model
    path = Path(_file(planned, MODEL_FILE))
    try:
        external = {one: target.read(_file(planned, one)) for one in planned.external}
        held = HeldModel(path, target.read(str(path)), external)
    except FileNotFoundError as error:
        raise InputError(f"{target.url}/{path}: expected the planned model, got no file") from error
    digest = digest_of_held(held)
    if digest != planned.sha256:
        raise InputError(
            f"{target.url}/{path}: expected the planned model, SHA-256 {planned.sha256}, "
            f"got {digest}"
        )
    return held


def _file(planned: PlannedModel, file: str) -> str:
    return f"models/{planned.name}/{planned.version}/{file}"


def _held(path: Path) -> tuple[PlannedModel, HeldModel]:
    version, name = path.parent.name, path.parent.parent.name
    if not is_name(name) or not is_version(version):
        raise InputError(f"model: expected NAME/VERSION/{MODEL_FILE}, got {path}; {NAME_RULE}")
    held = hold(path, _MAX_BYTES)
    planned = PlannedModel(name, int(version), digest_of_held(held), (), tuple(held.external))
    return planned, held


def _fetched(url: str, scratch: Path) -> Path:
    """Returns the model file of a version that was copied from a store into a scratch folder."""
    from convserve_store.bundles import BundleStore
    from convserve_store.location import open_location

    above, _, last = url.rstrip("/").rpartition("/")
    asked = None
    if is_version(last):
        asked = int(last)
        above, _, last = above.rpartition("/")
    try:
        store = BundleStore(open_location(above, "model"))
        listing = store.look()
        versions = listing.versions.get(last, {})
        if asked is None and versions:
            asked = max(versions)
        if asked not in versions:
            raise InputError(f"model: expected a published model at {url}, got none")
        folder = scratch / last / str(asked)
        folder.mkdir(parents=True)
        store.fetch(versions[asked], folder, _MAX_BYTES, listing)
    except StoreError as error:
        raise ScoringError(str(error)) from error
    return folder / MODEL_FILE

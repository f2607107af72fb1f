"""The model of a scoring: found once, copied into the target folder, and checked by every worker.

So workers need no models folder, and a version that is published meanwhile changes nothing.
"""

import io
from pathlib import Path

from convserve_bundle import external_data
from convserve_bundle.contract import MODEL_FILE, NAME_RULE, is_name, is_version
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import HeldModel, digest_of_held
from convserve_scoring.errors import InputError
from convserve_scoring.folders import Folder, open_folder
from convserve_scoring.plan import Plan, PlannedModel
from convserve_store.location import is_url


def find(url: str) -> tuple[PlannedModel, HeldModel]:
    """Returns a model, still without its labels, and what its files hold.

    Args:
        url: path or URL of a version's folder, of its model.onnx, or of a model's folder, whose
            newest version is meant.

    Raises:
        InputError: no bundle is there, or not in the layout NAME/VERSION/model.onnx.
        BundleError: it is not an ONNX file, or has data outside its folder.
        OSError: it cannot be read.
    """
    # Of "." or "models/photos/.." the name of the model is not to be seen.
    url = url if is_url(url) else str(Path(url).absolute().resolve())
    url = url.rstrip("/").removesuffix(f"/{MODEL_FILE}")
    folder = open_folder(url)
    if not folder.exists(MODEL_FILE):
        url = f"{url}/{_newest(folder)}"
        folder = open_folder(url)
    name, version = url.split("/")[-2:]
    if not is_name(name) or not is_version(version):
        raise InputError(
            f"model: expected NAME/VERSION/{MODEL_FILE}, got {url}/{MODEL_FILE}; {NAME_RULE}"
        )
    held = _held(folder, url, _external(folder, url))
    planned = PlannedModel(name, int(version), digest_of_held(held), (), tuple(held.external))
    return planned, held


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


def _newest(folder: Folder) -> int:
    versions = [
        int(parts[0])
        for name, _ in folder.files()
        if len(parts := name.split("/")) == 2 and parts[1] == MODEL_FILE and is_version(parts[0])
    ]
    if not versions:
        raise InputError(
            f"model: expected a folder with {MODEL_FILE} or VERSION/{MODEL_FILE}, got {folder.url}"
        )
    return max(versions)


def _external(folder: Folder, url: str) -> list[str]:
    """Returns the locations of external data, which are within the folder."""
    content = folder.read(MODEL_FILE)
    locations = list(external_data.locations_in(io.BytesIO(content), len(content)))
    for location in locations:
        if location.startswith("/") or ".." in location.split("/"):
            raise BundleError(f"{url}: expected its external data in its folder, got {location!r}")
    return locations


def _held(folder: Folder, url: str, external: list[str]) -> HeldModel:
    contents = {location: folder.read(location) for location in external}
    return HeldModel(Path(f"{url}/{MODEL_FILE}"), folder.read(MODEL_FILE), contents)

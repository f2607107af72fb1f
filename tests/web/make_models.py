"""The models that the page is tried on: `python -m tests.web.make_models FOLDER`, in `.venv`.

A net that reads digits, trained for a moment, as two versions; the strongest colour of photographs,
of JPEGs alone and of all formats, and each that is strong enough; and a version that a server
refuses.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from convserve_imaging import PICTURE_BILINEAR
from tests.bundles import write_photo_bundle, write_several_bundle

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CONVSERVE_TEST_DATA", ROOT.parent / "shared" / "data")) / "mnist"

#: One epoch of so many digits reads nine of ten, in ten seconds.
DIGITS = 12_000


def main(folder: Path) -> None:
    """Publishes them; ends with the status of the training if that fails."""
    command = ["fit", "digits", "--name", "mnist", "--models", str(folder)]
    command += ["--epochs", "1", "--limit", str(DIGITS)]
    command += ["--data", str(DATA)] if DATA.exists() else []
    trained = subprocess.run([sys.executable, "-m", "convserve_trainer.main", *command])
    if trained.returncode:
        sys.exit(trained.returncode)
    shutil.copytree(folder / "mnist" / "1", folder / "mnist" / "2")
    write_photo_bundle(folder)
    write_photo_bundle(folder, "mixed", resize=PICTURE_BILINEAR)
    write_several_bundle(folder)
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"not a model")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

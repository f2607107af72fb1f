"""Writes what the wheel's extras and the images contain, as CycloneDX: make sbom.

Run by the Python of locks/supply.txt. The same locks give the same bytes.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from locked import blocks, image_environment
from packaging.markers import Marker

#: The locks of each document. Those of the wheel hold for every system, those of images for theirs.
DOCUMENTS: dict[str, Sequence[str]] = {
    "wheel-client": ["client.txt"],
    "wheel-bench": ["bench.txt"],
    "wheel-serve": ["serve.txt"],
    "wheel-serve-signing": ["serve-signing.txt"],
    "wheel-serve-openvino": ["serve-openvino.txt"],
    "wheel-serve-s3": ["serve-s3.txt"],
    "wheel-score": ["score.txt"],
    "wheel-gpu": ["gpu.txt"],
    "wheel-train": ["train.txt"],
    "wheel-train-s3": ["train-s3.txt"],
    "image-server": ["serve.txt"],
    "image-server-signing": ["serve-signing.txt"],
    "image-server-s3": ["serve-s3.txt"],
    "image-server-gpu": ["gpu-image.txt"],
    "image-client": ["bench.txt"],
    "image-trainer": ["train.txt", "mnist.txt"],
    "image-trainer-s3": ["train-s3.txt", "mnist.txt"],
}


def main(out: Path, names: Sequence[str]) -> None:
    """Writes documents into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    environment = image_environment()
    for name in names:
        lines = [
            text
            for lock in DOCUMENTS[name]
            for pin, text in blocks(lock)
            if name.startswith("wheel-")
            or not pin.marker
            or Marker(pin.marker).evaluate(environment)
        ]
        path = out / f"{name}.cdx.json"
        # Whether it is valid is for a test: that takes ten times as long as to write it.
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements"),
                *("--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON"),
                *("--no-validate", "-o", str(path), "-"),
            ],
            input="".join(lines),
            text=True,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            sys.exit(f"{name}: {done.stderr.strip()}")
        print(f"{path}: {len(lines)} packages")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(DOCUMENTS))

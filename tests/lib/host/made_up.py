"""A machine made up of files: cgroups, which of them we are in, and its memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from convserve_host import cgroups, memory


@contextmanager
def machine(
    folder: Path, self_cgroup: str, files: Mapping[str, str], meminfo: str = ""
) -> Iterator[None]:
    """This process is in these cgroups.

    Args:
        folder: for the files.
        self_cgroup: text of /proc/self/cgroup.
        files: of cgroups, by their path below the mount.
        meminfo: text of /proc/meminfo.
    """
    mount = folder / "cgroup"
    for name, text in files.items():
        file = mount / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "self").write_text(self_cgroup)
    (folder / "meminfo").write_text(meminfo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroups, "CGROUP", mount)
        patch.setattr(cgroups, "SELF", folder / "self")
        patch.setattr(memory, "MEMINFO", folder / "meminfo")
        yield

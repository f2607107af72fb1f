"""Where decoded photographs are kept for the epochs and the trainings to come.

In memory, on disk, or not at all. On disk each data set, method and size has a folder among the
user's caches: its pixels (`pixel_store`), and what is known of its files (`photo_survey`). A folder
that is used is locked; others are removed, those first that were used longest ago, where the space
for all of them is needed, and after UNUSED_S.
"""

import fcntl
import hashlib
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convserve_host import leftovers, memory, os_errors
from convserve_trainer.datasets import photo_survey
from convserve_trainer.datasets.photo_list import DIGEST
from convserve_trainer.datasets.pixel_store import PixelStore
from convserve_trainer.errors import DataError
from convserve_trainer.host import user_cache

MODES = ("none", "memory", "disk")
SHARE = 0.25  # of the available memory, and of the free disk, that pixels may fill unasked
QUICK_BYTES = 2**30  # of pixels in memory; more take minutes to decode again for each training
UNUSED_S = 30 * 86_400.0
FORM = "1"  # of what is in a folder
GB = 10**9


class FolderLock:
    """A folder that no other process removes as long as this object is there.

    Args:
        folder: made if it is not there.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        weakref.finalize(self, os.close, _locked(folder))
        os.utime(folder)  # the time of its last use


class PhotoCache:
    """What is kept of one data set, for one method and size.

    Args:
        data: folder or file of the data set.
        shape: rows, columns and channels of each picture.
        method: that makes their pixels.
        count: photographs of it.
        asked: where the user wants the pixels, one of MODES; None for what suits.

    Attributes:
        folder: in which it is kept; of a small set it is not made.
        survey: what is known of the files.
    """

    def __init__(
        self, data: Path, shape: tuple[int, int, int], method: str, count: int, asked: str | None
    ) -> None:
        which = "\n".join([FORM, os.fspath(data.resolve()), method, str(shape)])
        name = hashlib.sha256(os.fsencode(which)).hexdigest()[:32]
        self.folder, self._shape, self._asked = user_cache.folder("photos") / name, shape, asked
        self._each = shape[0] * shape[1] * shape[2] + DIGEST
        self._store: PixelStore | None = None
        self._lock: FolderLock | None = None
        self._refusal: OSError | None = None
        large = count >= photo_survey.LEAST or count * self._each > QUICK_BYTES
        if large or asked == "disk":
            try:
                self._take()
            except OSError as error:
                self._refusal = error
        self.survey = photo_survey.Survey(self.folder)

    @property
    def store(self) -> PixelStore:
        """The pixels; there is one after `mode` was "disk".

        Raises:
            DataError: they cannot be read.
        """
        if self._store is None:
            try:
                self._store = PixelStore(self.folder, self._shape, self._lock)
            except OSError as error:
                raise self.refused(error) from error
        return self._store

    def mode(self, count: int, most_bytes: int | None) -> str:
        """Returns where to keep the pixels of so many photographs, one of MODES; makes space there.

        Args:
            count: photographs.
            most_bytes: of all caches on disk; None for a SHARE of what is free there.

        Raises:
            DataError: the disk is asked for, and refuses or has too little space.
        """
        if self._asked in ("none", "memory"):
            return self._asked
        pixels = count * self._each
        fits = pixels <= SHARE * memory.available_bytes()
        if self._asked is None and fits and pixels <= QUICK_BYTES:
            return "memory"
        refusal = self._refusal
        if refusal is None:
            try:
                lacking = self._make_space(pixels, most_bytes)
            except OSError as error:
                refusal = error
            else:
                if lacking is None:
                    return "disk"
                if self._asked == "disk":
                    raise DataError(lacking)
        if refusal is not None and self._asked == "disk":
            raise self.refused(refusal) from refusal
        return "memory" if fits else "none"

    def begin_anew_if_worn(self, count: int, say: Callable[[str], None]) -> None:
        """Removes the pixels if most are of photographs that are gone, or shards are too many.

        Args:
            count: photographs of the whole data set.
            say: takes lines.

        Raises:
            DataError: the disk refuses.
        """
        if self.store.is_worn(count):
            with self.writing(say):
                self.store.clear()

    @contextmanager
    def writing(self, say: Callable[[str], None]) -> Iterator[None]:
        """Waits until no other training writes pixels here; removes what killed ones have left.

        Raises:
            DataError: the disk is full, or refuses.
        """
        try:
            with (self.folder / ".lock").open("w") as file:
                if _lock_alone(file.fileno(), say):
                    for path in self.folder.glob(leftovers.PATTERN):
                        path.unlink(missing_ok=True)
                else:
                    leftovers.remove(self.folder)
                self.store.look()
                yield
        except OSError as error:
            raise self.refused(error) from error

    def refused(self, error: OSError) -> DataError:
        """Returns what to say where the disk refuses."""
        return DataError(
            f"pixels cannot be kept in {self.folder.parent}: {os_errors.reason(error)}; or name "
            "another cache with XDG_CACHE_HOME, or add --cache none"
        )

    def _take(self) -> None:
        """Makes the folder, and locks it for as long as this object or its pixels are used."""
        self._lock = FolderLock(self.folder)
        leftovers.remove(self.folder.parent)
        for other, used in _others(self.folder).items():
            if time.time() - used > UNUSED_S:
                _remove(other)

    def _make_space(self, pixels: int, most_bytes: int | None) -> str | None:
        """Removes other caches until so many bytes are allowed; returns what is lacking, if any."""
        own = _size(self.folder)
        others = {folder: _size(folder) for folder in _others(self.folder)}
        free = shutil.disk_usage(self.folder).free
        all_bytes = free + own + sum(others.values())
        allowed = int(SHARE * all_bytes) if most_bytes is None else min(most_bytes, all_bytes)
        needed = max(pixels, own)
        for folder in list(others):
            if needed > allowed or needed + sum(others.values()) <= allowed:
                break
            if _remove(folder):
                del others[folder]
        busy = sum(others.values())
        if needed + busy <= allowed:
            return None
        why = "a quarter of what is free" if most_bytes is None else "by --cache-gb, or free"
        return (
            f"--cache: expected at most {allowed / GB:.1f} GB ({why}) in {self.folder.parent}, got "
            f"{needed / GB:.1f} GB of pixels"
            + (f" beside {busy / GB:.1f} GB that other trainings use" if needed <= allowed else "")
            + "; give it more with --cache-gb, name another cache with XDG_CACHE_HOME, or add "
            "--cache none"
        )


def _locked(folder: Path) -> int:
    """Makes the folder and returns its lock, a descriptor, which others may have, too."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # removed meanwhile, as one that nobody uses
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(folder.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def _lock_alone(descriptor: int, say: Callable[[str], None]) -> bool:
    """Waits for a lock; returns False where there are none: then two write, which costs space."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another training decodes these photographs: waiting for its pixels")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _others(folder: Path) -> dict[Path, float]:
    """Returns the caches beside one with the times of their last use, longest ago first."""
    found = {}
    for path in folder.parent.iterdir():
        with suppress(FileNotFoundError, NotADirectoryError):  # removed meanwhile, or none of ours
            if path != folder and not path.name.startswith("."):
                found[path] = (path / ".").stat().st_mtime
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:  # removed, or being replaced
        return 0


def _remove(folder: Path) -> bool:
    """Removes a cache that nobody uses; returns whether it is gone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Nobody finds half of it: whoever opened it under its name sees that it is another one.
        gone = folder.with_name(f".{folder.name}.tmp")
        os.rename(folder, gone)
        shutil.rmtree(gone)
    except OSError:  # in use, of another user, or on a file system that cannot tell
        return False
    finally:
        os.close(descriptor)
    return True

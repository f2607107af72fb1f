"""Where the user's machine keeps what can be made again."""

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


def folder(name: str) -> Path:
    """Returns our cache of that name; it may not exist yet.

    Source: XDG Base Directory Specification: a relative or empty XDG_CACHE_HOME is ignored.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = configured if configured.is_absolute() else _default()
    return home / "convserve" / name


def settle_libraries() -> None:
    """Gives Keras and Matplotlib folders in our cache; call it before either is imported.

    Left alone they want folders in HOME, warn where they get none, and take the user's settings.
    """
    os.environ.setdefault("KERAS_HOME", str(folder("keras")))
    os.environ.setdefault("MPLCONFIGDIR", str(folder("matplotlib")))
    # A folder that cannot be written to only costs a second: it takes a temporary one.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _default() -> Path:
    try:
        home = Path.home()
    except RuntimeError:  # a container's user often has neither HOME nor an entry in passwd
        return _for_this_process()
    usable = os.access(home / ".cache", os.X_OK) or os.access(home, os.W_OK)
    return home / ".cache" if usable else _for_this_process()


@cache
def _for_this_process() -> Path:
    # Of a name that nobody else can have prepared.
    made = tempfile.mkdtemp(prefix="convserve-cache-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)

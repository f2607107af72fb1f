"""Where the user's machine keeps what can be made again."""

import os
from pathlib import Path


def folder(name: str) -> Path:
    """Returns our cache of that name; it may not exist yet.

    Source: XDG Base Directory Specification: a relative or empty XDG_CACHE_HOME is ignored.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = configured if configured.is_absolute() else Path.home() / ".cache"
    return home / "convserve" / name

"""`convserve new-key`: makes a key for callers, and what a server has to know of it."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import secrets

from convserve.errors import InvalidRequest

#: Of a key; twice what nobody can guess.
_RANDOM_BYTES = 32

#: As the server has it of names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new_key(arguments: argparse.Namespace) -> int:
    """Writes a new key into a file of its own, and prints its table for the server's file of keys.

    The key itself is printed nowhere: terminals and jobs keep what they show.

    Returns:
        0.

    Raises:
        InvalidRequest: The name is not one that a key may have, or the file is there or cannot be
            written.
    """
    name: str = arguments.name
    if not _NAME.fullmatch(name) or name == "anonymous":
        raise InvalidRequest(
            "name: expected 1 to 64 letters, digits, dots, dashes and underscores, other than "
            f"anonymous, got {name!r}"
        )
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    try:
        file = os.open(arguments.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as text:
            text.write(f"{token}\n")
    except OSError as error:
        raise InvalidRequest(
            f"file: expected one that can be made anew, got {arguments.file}: {error.strerror}"
        ) from error
    digest = hashlib.sha256(token.encode()).hexdigest()
    print(f'[[key]]\nname = "{name}"\nsha256 = "{digest}"\n')
    return 0

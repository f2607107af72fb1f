"""A value that is never shown: a key, a password."""

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Self

_SHOWN = "***"


class Secret:
    """Text that str(), repr() and format() show as ***, and that json and pickle refuse.

    It comes from a file or a variable: every user of the machine sees a command line. Where json
    is given default=str, it writes ***. A copy is the same object.

    Args:
        text: What is secret.

    Raises:
        ValueError: It is empty.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("secret: expected text, got none")
        self._text = text

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Returns the text of a file (UTF-8), without white space around it.

        Raises:
            OSError: The file cannot be read.
            ValueError: It has no text, or is not UTF-8.
        """
        try:
            return cls(path.read_text("utf-8").strip())
        except UnicodeDecodeError:
            # Without the bytes, which Python's own error holds.
            raise ValueError(f"{path}: expected UTF-8, got other bytes") from None
        except ValueError:
            raise ValueError(f"{path}: expected a secret, got an empty file") from None

    @classmethod
    def from_variable(cls, name: str, environ: Mapping[str, str]) -> Self:
        """Returns the text of an environment variable, as it is.

        Raises:
            ValueError: It is not set, or empty.
        """
        try:
            return cls(environ.get(name, ""))
        except ValueError:
            raise ValueError(f"{name}: expected a secret, got none") from None

    def reveal(self) -> str:
        """Returns the text itself."""
        return self._text

    def __str__(self) -> str:
        return _SHOWN

    def __repr__(self) -> str:
        return f"Secret({_SHOWN!r})"

    def __format__(self, spec: str) -> str:
        return format(_SHOWN, spec)

    def __eq__(self, other: object) -> bool:
        """Compares in a time that says nothing of where two secrets differ."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        # "***" in its place would be a secret that everybody knows.
        raise TypeError("a Secret cannot be pickled")

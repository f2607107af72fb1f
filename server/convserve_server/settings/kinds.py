"""Values of settings that are more than one number or one text: how they are read and checked."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping

from convserve_bundle.contract import LABEL_RULE, is_name, is_version

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]-]+")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")

#: What a text means for a switch.
_SWITCHED = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}

_COLLECTOR = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?/?")

#: A value of a setting; a bool is of a switch, tuples and mappings are of the other kinds below.
Value = int | float | str | tuple[int, ...] | Mapping[str, int]


class WrongValue(ValueError):
    """A value is not of its kind.

    Args:
        rule: what was expected, beginning with "expected".
        got: that came.
        within: the key, if it is within the value.
    """

    def __init__(self, rule: str, got: object, within: str = "") -> None:
        super().__init__(f"{rule}, got {got!r}")
        self.got = got
        self.within = within


class Kind(ABC):
    """What a value may be.

    Attributes:
        expected: what a value must be, for messages.
        words: that are allowed beside other values.
    """

    expected: str
    words: tuple[str, ...] = ()

    def read(self, text: str) -> object:
        """Returns what a text means, of a flag or a variable, to be checked; by default itself."""
        return text

    @abstractmethod
    def checked(self, value: object) -> Value:
        """Returns a value as it is kept, of the file, of JSON or of code.

        Raises:
            WrongValue: It is not of this kind.
        """


class Versions(Kind):
    """Versions of a model: so many of the newest, "all", or a list of versions.

    Args:
        most: of the newest, or in a list.
    """

    words = ("all",)

    def __init__(self, most: int) -> None:
        self._most = most
        self.expected = f"a whole number from 1 to {most}, all, or a list of versions as [3, 5]"

    def read(self, text: str) -> object:
        """See Kind.read."""
        try:
            return int(text)
        except ValueError:
            return text

    def checked(self, value: object) -> Value:
        """See Kind.checked."""
        if value == "all":
            return "all"
        if type(value) is int and 1 <= value <= self._most:
            return value
        if (
            isinstance(value, list | tuple)
            and 1 <= len(value) <= self._most
            and all(map(_is_version, value))
        ):
            return tuple(value)
        raise WrongValue(f"expected {self.expected}", value)


class Origins(Kind):
    """Origins of web pages, separated by commas; "*" for any; empty for none.

    Source: RFC 6454, section 6.2.
    """

    expected = "origins as https://example.org, separated by commas, or *"
    words = ("*",)

    def checked(self, value: object) -> Value:
        """See Kind.checked."""
        if not isinstance(value, str):
            raise WrongValue(f"expected {self.expected}", value)
        origins = [each.strip() for each in value.split(",")] if value else []
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise WrongValue(f"expected {self.expected}", origin)
        return ",".join(origins)


class Hosts(Kind):
    """Names of hosts without ports, separated by commas; "*" for any; empty for none.

    Source: RFC 1123, section 2.1.
    """

    expected = "names of hosts as models.example.org, separated by commas, or *"
    words = ("*",)

    def checked(self, value: object) -> Value:
        """See Kind.checked."""
        if not isinstance(value, str):
            raise WrongValue(f"expected {self.expected}", value)
        names = [each.strip().lower() for each in value.split(",")] if value else []
        for name in names:
            if name != "*" and not _HOST.fullmatch(name):
                raise WrongValue(f"expected {self.expected}", name)
        return ",".join(names)


class Switch(Kind):
    """On or off: a flag without a value, and a boolean in the file."""

    expected = "true or false, 1 or 0, on or off"
    words = ("true", "false", "on", "off")

    def read(self, text: str) -> object:
        """See Kind.read."""
        return _SWITCHED.get(text.strip().lower(), text)

    def checked(self, value: object) -> Value:
        """See Kind.checked."""
        if not isinstance(value, bool):
            raise WrongValue(f"expected {self.expected}", value)
        return value


class CollectorUrl(Kind):
    """Where traces go: http:// or https://, a host and maybe a port; empty for nowhere."""

    expected = "a URL as http://collector:4317 or https://collector:4317"

    def checked(self, value: object) -> Value:
        """See Kind.checked."""
        if isinstance(value, str) and (not value or _COLLECTOR.fullmatch(value)):
            return value
        raise WrongValue(f"expected {self.expected}", value)


class Labels(Kind):
    """Labels of a model's versions, each with its version."""

    expected = "labels with a version each, as {stable = 3}"

    def checked(self, value: object) -> Value:
        """See Kind.checked."""
        if not isinstance(value, Mapping):
            raise WrongValue(f"expected {self.expected}", value)
        for label, version in value.items():
            if not isinstance(label, str) or not is_name(label):
                raise WrongValue(LABEL_RULE, label)
            if not _is_version(version):
                raise WrongValue("expected a version from 1 up", version, label)
        return dict(value)


def shown(value: Value) -> str:
    """Returns a value as the file of settings has it, but for the quotes of a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {one}" for key, one in value.items()) + "}"
    return str(value)


def _is_version(value: object) -> bool:
    return type(value) is int and is_version(str(value))

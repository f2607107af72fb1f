"""The labels of a model's versions, in one small file beside the versions: NAME/labels.json.

    {"format": 1, "labels": {"stable": 4, "canary": 5}, "previous": {"stable": 3}}

Servers whose `rollout` is "label" read them there, and a label moves by a change of this file. So
that it can move back at once, the file keeps the version that each label named before, and servers
keep that loaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from convserve_bundle.contract import LABEL_RULE, LABELS_FILE, VERSION_RULE, is_name, is_version
from convserve_bundle.errors import BundleError

#: Of the layout.
FORMAT = 1
#: Most bytes of the file, and most labels in it: all of their versions are loaded.
MOST_BYTES = 65_536
MOST_LABELS = 100

_FIELDS = ("format", "labels", "previous")


@dataclass(frozen=True)
class VersionLabels:
    """Which version each label of a model names.

    Attributes:
        labels: The version of each.
        previous: The version that a label named before, of those that have moved.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    previous: Mapping[str, int] = field(default_factory=dict)

    @property
    def versions(self) -> frozenset[int]:
        """All that labels name, or named before: what a server loads."""
        return frozenset(self.labels.values()) | frozenset(self.previous.values())

    def moved(self, label: str, version: int | None) -> Self:
        """Returns the labels after one has moved to a version; None: it is removed.

        Raises:
            BundleError: There would be too many.
        """
        labels, previous = dict(self.labels), dict(self.previous)
        before = labels.pop(label, None)
        if version is None:
            previous.pop(label, None)
            return type(self)(labels, previous)
        labels[label] = version
        if len(labels) > MOST_LABELS:
            raise BundleError(f"labels: expected at most {MOST_LABELS}, got {len(labels)}")
        if before not in (None, version):
            previous[label] = before
        return type(self)(labels, previous)


def read_labels(content: bytes) -> VersionLabels:
    """Returns what a file of labels says.

    Raises:
        BundleError: It is not one.
    """
    if len(content) > MOST_BYTES:
        raise _error("", f"at most {MOST_BYTES} bytes", f"{len(content)}")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _error("", "JSON", str(error)) from error
    if not isinstance(values, dict) or set(values) - set(_FIELDS):
        raise _error("", f"an object of {', '.join(_FIELDS)}", _shown(values))
    if type(values.get("format")) is not int or values["format"] != FORMAT:
        raise _error("format", str(FORMAT), _shown(values.get("format")))
    labels = _versions("labels", values.get("labels"))
    previous = _versions("previous", values.get("previous", {}))
    return VersionLabels(labels, {one: previous[one] for one in previous if one in labels})


def write_labels(labels: VersionLabels) -> bytes:
    """Returns the content of a file of labels."""
    values = {
        "format": FORMAT,
        "labels": dict(sorted(labels.labels.items())),
        "previous": dict(sorted(labels.previous.items())),
    }
    return json.dumps(values).encode() + b"\n"


def _versions(name: str, values: Any) -> dict[str, int]:
    if not isinstance(values, dict):
        raise _error(name, "an object of labels, each with its version", _shown(values))
    if len(values) > MOST_LABELS:
        raise _error(name, f"at most {MOST_LABELS}", f"{len(values)}")
    for label, version in values.items():
        if not is_name(label):
            raise BundleError(f"{LABELS_FILE}: {name}: {LABEL_RULE}, got {_shown(label)}")
        if type(version) is not int or not is_version(str(version)):
            raise BundleError(
                f"{LABELS_FILE}: {name}.{label}: {VERSION_RULE}, got {_shown(version)}"
            )
    return values


def _error(name: str, expected: str, got: str) -> BundleError:
    where = f"{LABELS_FILE}: {name}" if name else LABELS_FILE
    return BundleError(f"{where}: expected {expected}, got {got}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."

"""A metrics page: the numbers of a server at one time, and what two of them have between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from convserve.errors import UnexpectedReply

PREFIX = "convserve_"
"""Of all names of the server's metrics; others are passed over."""

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""

_COUNTED = ("_total", "_bucket", "_count", "_sum")


@dataclass(frozen=True)
class Page:
    """The numbers of one page.

    Attributes:
        read_s: When it was read, time.monotonic().
        values: By the name of the sample and its labels.
    """

    read_s: float
    values: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def parse(cls, text: str, read_s: float) -> Page:
        """Returns the page of a text in Prometheus's format.

        Raises:
            UnexpectedReply: It is in another format, or has no number of Convserve.
        """
        values: dict[str, dict[Labels, float]] = {}
        try:
            for family in text_string_to_metric_families(text):
                if not family.name.startswith(PREFIX):
                    continue
                for sample in family.samples:
                    labels = tuple(sorted(sample.labels.items()))
                    values.setdefault(sample.name, {})[labels] = float(sample.value)
        # The parser has no error of its own: it splits lines and converts numbers.
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            raise UnexpectedReply("it is not in the format of Prometheus") from error
        if not values:
            raise UnexpectedReply("it has no metrics of Convserve")
        return cls(read_s, values)

    def of(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yields the labels and the value of each sample of a name."""
        for labels, value in self.values.get(name, {}).items():
            yield dict(labels), value


@dataclass(frozen=True)
class Increase:
    """How much the counters of a page have grown.

    Attributes:
        page: The later one.
        before: The earlier one; None: since the server has started.
    """

    page: Page
    before: Page | None = None

    @classmethod
    def between(cls, before: Page, page: Page) -> Increase:
        """Returns what was counted between two pages.

        Where a counter is less than before, the server has started anew in between: what it has
        counted since then is all of it.
        """
        return cls(page, None if _is_new(before, page) else before)

    def of(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yields the labels and the increase of each sample of a counter or histogram."""
        before = self.before.values.get(name, {}) if self.before else {}
        for labels, value in self.page.values.get(name, {}).items():
            yield dict(labels), value - before.get(labels, 0.0)


def _is_new(before: Page, page: Page) -> bool:
    """Returns whether any counter is less than it was."""
    return any(
        labels in old and value < old[labels]
        for name, now in page.values.items()
        if name.endswith(_COUNTED) and (old := before.values.get(name))
        for labels, value in now.items()
    )

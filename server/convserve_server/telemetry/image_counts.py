"""What sampled images are like, counted in the bins of those that the net was trained on.

Each process counts in its slot of the shared memory, all the time and in the last hour; any process
adds that up. Called with the lock of who counts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from convserve_bundle.stability import MEASURES, Known, by_luck, stability_index
from convserve_server.telemetry.counted_rows import Keys
from convserve_server.telemetry.layouts import IMAGES, MOST_BINS, PARTS
from convserve_server.telemetry.slab import Row, Table

#: Of the last hour, the newest of which is not over yet, s.
PART_S = 300.0
WINDOW_S = PARTS * PART_S

_PARTS = IMAGES.at("parts")


class ImageCounts:
    """Counts the sampled images of one process.

    Args:
        table: of its slot.
    """

    def __init__(self, table: Table) -> None:
        self._keys = Keys(table)
        self._rows = {row.key: row for row in table.own()}

    def expect(self, model: str, known: Mapping[str, Known]) -> None:
        """Counts a version from now on, unless all rows are others'.

        Args:
            model: as "NAME/VERSION".
            known: distributions by their names, of MEASURES.
        """
        row = self._rows.get(model) or self._keys.new(model)
        if row is None:
            return
        # Other files may come by the name of one that was removed.
        if any(_known(row, name) != known.get(name) for name in MEASURES):
            _write(row, known)
        self._rows[model] = row

    def add(self, model: str, values: Mapping[str, float], now: float) -> None:
        """Counts an image.

        Args:
            model: as "NAME/VERSION".
            values: by their names, some of MEASURES.
            now: time.monotonic(), which all processes of a machine share.
        """
        row = self._rows.get(model)
        if row is None:
            return
        number = int(now // PART_S) + 1
        part = number % PARTS
        if row.counts[_PARTS + part] != number:
            # A reader meanwhile sees a part that is no longer of the window.
            row.counts[_PARTS + part] = 0
            for name in MEASURES:
                _clear(row, IMAGES.at(f"{name}_parts") + part * MOST_BINS, MOST_BINS)
            row.counts[_PARTS + part] = number
        for name, value in values.items():
            known = _known(row, name)
            if known is not None:
                bin_ = bisect_left(known.bounds, value)
                row.counts[IMAGES.at(f"{name}_counts") + bin_] += 1
                row.seconds[IMAGES.at(f"{name}_sum")] += value
                row.counts[IMAGES.at(f"{name}_parts") + part * MOST_BINS + bin_] += 1


@dataclass(frozen=True)
class ImageTotals:
    """What the sampled images of a version are like, by one measure.

    Attributes:
        known: of the pictures of its training.
        counts: of all images since the server started, by bin.
        sum: of their values.
        recent: of those of the last hour, by bin.
    """

    known: Known
    counts: tuple[int, ...]
    sum: float
    recent: tuple[int, ...]

    @property
    def index(self) -> float | None:
        """The population stability index of the last hour; None without images."""
        return stability_index(self.known.counts, self.recent) if any(self.recent) else None

    @property
    def by_luck(self) -> float | None:
        """What it hardly ever reaches for images that are alike; None without images."""
        return by_luck(self.known.counts, sum(self.recent)) if any(self.recent) else None


def totals(tables: Iterable[Table], now: float) -> dict[tuple[str, str], ImageTotals]:
    """Returns the sums of all processes.

    Args:
        tables: one of each slot.
        now: time.monotonic().

    Returns: by version, as "NAME/VERSION", and measure.
    """
    rows: dict[str, list[Row]] = {}
    for table in tables:
        for row in table.own():
            rows.setdefault(row.key, []).append(row)
    return {
        (model, name): found
        for model in sorted(rows)
        for name in MEASURES
        if (found := _total(rows[model], name, now)) is not None
    }


def _total(rows: Sequence[Row], name: str, now: float) -> ImageTotals | None:
    # Those who began last have what is served now.
    last = max(rows, key=lambda row: max(row.counts[_PARTS : _PARTS + PARTS]))
    known = _known(last, name)
    if known is None:
        return None
    same = [row for row in rows if _known(row, name) == known]
    bins = len(known.counts)
    since = int(now // PART_S) + 1 - PARTS
    at = IMAGES.at(f"{name}_parts")
    recent = [
        row.counts[at + part * MOST_BINS : at + part * MOST_BINS + bins]
        for row in same
        for part in range(PARTS)
        if row.counts[_PARTS + part] > since
    ]
    at = IMAGES.at(f"{name}_counts")
    return ImageTotals(
        known,
        _added([row.counts[at : at + bins] for row in same], bins),
        sum(row.seconds[IMAGES.at(f"{name}_sum")] for row in same),
        _added(recent, bins),
    )


def _added(counts: Sequence[Sequence[int]], bins: int) -> tuple[int, ...]:
    return tuple(map(sum, zip(*counts, strict=True))) if counts else (0,) * bins


def _known(row: Row, name: str) -> Known | None:
    """Returns the distribution that a row has; None without one."""
    bins = row.counts[IMAGES.at(f"{name}_bins")]
    if not bins:
        return None
    bounds, counts = IMAGES.at(f"{name}_bounds"), IMAGES.at(f"{name}_known")
    return Known(
        tuple(row.seconds[bounds : bounds + bins - 1]), tuple(row.counts[counts : counts + bins])
    )


def _write(row: Row, known: Mapping[str, Known]) -> None:
    """Begins a row anew."""
    for name in MEASURES:
        row.counts[IMAGES.at(f"{name}_bins")] = 0
    _clear(row, 0, IMAGES.words)
    for name, one in known.items():
        bins = len(one.counts)
        for index, bound in enumerate(one.bounds):
            row.seconds[IMAGES.at(f"{name}_bounds") + index] = bound
        for index, count in enumerate(one.counts):
            row.counts[IMAGES.at(f"{name}_known") + index] = count
        # Last: who sees it sees the rest.
        row.counts[IMAGES.at(f"{name}_bins")] = bins


def _clear(row: Row, at: int, words: int) -> None:
    for index in range(at, at + words):
        row.counts[index] = 0

"""Looks at a few of the images that a version is asked about: what are they like?

By the same measures as the trainer, whose figures are in the manifest: brightness and contrast of
the pixels that the net is given, the size of files, how sure the net is. A few suffice, so the time
decides which: the next image after a pause. The pause is longer where looking is expensive.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from convserve_imaging.errors import PictureError
from convserve_imaging.measures import light, rounded, sides
from convserve_imaging.pictures import upright_size
from convserve_server.engines.base import Probabilities
from convserve_server.telemetry.observer import Observer

log = logging.getLogger(__name__)


class ImageWatch:
    """Looks at images of one version.

    Its methods may be called from any thread, and never raise.

    Args:
        model: as "NAME/VERSION".
        names: of the measures that its manifest has.
        a_second: images a second, at most; above 0.
        observer: that hears what they are like.
        clock: the time, s.

    Attributes:
        due: when to look at pixels again, time.monotonic().
        size_due: when to look at a file again; never where sizes are not known.
    """

    #: Most of the time of one CPU that looking at pixels takes, or at files.
    MOST_SHARE = 0.0025

    def __init__(
        self,
        model: str,
        names: Collection[str],
        a_second: float,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._names = frozenset(names)
        self._pause_s = 1 / a_second
        self._observer = observer
        self._clock = clock
        self.due = -math.inf
        self.size_due = -math.inf if "size" in names else math.inf

    def look(self, parts: Sequence[Any], rows: Probabilities) -> None:
        """Looks at one image of a batch; for when it is due.

        Args:
            parts: uint8 [n, H, W, C] each.
            rows: float32 [sum of n, K], the answers.
        """
        began = self._clock()
        # Until it is known: another thread may come meanwhile.
        self.due = began + self._pause_s
        try:
            number = index = random.randrange(len(rows))
            for part in parts:
                if index < len(part):
                    break
                index -= len(part)
            brightness, contrast = light(part[index : index + 1])[:, 0]
            self._tell(
                brightness=brightness, contrast=contrast, confidence=rows[number].max(initial=0.0)
            )
        except Exception:
            log.exception("%s: images cannot be looked at, and are not any more", self._model)
            self.due = math.inf
            return
        self.due = self._next(began)

    def look_at_file(self, files: Sequence[bytes]) -> None:
        """Looks at the header of one of several files that are pictures; for when it is due."""
        began = self._clock()
        self.size_due = began + self._pause_s
        try:
            size = upright_size(random.choice(files))
        except PictureError:
            return  # its pixels are of another reader, which accepts more
        except Exception:
            log.exception("%s: files cannot be looked at, and are not any more", self._model)
            self.size_due = math.inf
            return
        self._tell(size=sides(np.array([size]))[0])
        self.size_due = self._next(began)

    def _tell(self, **values: np.float32) -> None:
        known = {name: value for name, value in values.items() if name in self._names}
        numbers = rounded(np.array(list(known.values())))
        # A damaged answer is counted elsewhere.
        if np.isfinite(numbers).all():
            found = dict(zip(known, map(float, numbers), strict=True))
            self._observer.sampled(self._model, found, self._clock())

    def _next(self, began: float) -> float:
        """Returns when to look again: at another time each time, so that no rhythm repeats."""
        now = self._clock()
        pause_s = max(self._pause_s, (now - began) / self.MOST_SHARE)
        return now + pause_s * random.uniform(0.5, 1.5)

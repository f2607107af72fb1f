"""Which models are unloaded because nobody asks for them, until somebody does."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.tables import Bundle, IdleModel, ServedModel, Table
from convserve_server.process.wishes import Wish

log = logging.getLogger(__name__)


@dataclass
class _Idle:
    """A model that is idle.

    Attributes:
        model: As workers are sent it, but for its labels, which may move while it is idle.
        bundles: That are loaded when somebody asks for it.
        woken: Whether somebody has; it is idle until they are loaded.
    """

    model: IdleModel
    bundles: frozenset[Bundle]
    woken: bool = False


class IdleModels:
    """Decides which models are idle. Not thread-safe; times are of time.monotonic()."""

    def __init__(self) -> None:
        # When a call last asked for a model, or it was first served.
        self._used: dict[str, float] = {}
        self._idle: dict[str, _Idle] = {}
        self._descriptions: dict[Bundle, ModelDescription] = {}
        self._load_s: dict[Bundle, float] = {}

    def on_loaded(self, bundle: Bundle, description: ModelDescription, load_s: float) -> None:
        """Notes what a version is, and the seconds that a worker took to load it."""
        self._descriptions[bundle] = description
        self._load_s[bundle] = load_s

    def on_used(self, names: Collection[str], now: float) -> None:
        """Notes that calls have asked for models."""
        for name in names:
            self._used[name] = now

    def wake(self, name: str, now: float) -> None:
        """Has a model loaded again, if it is idle."""
        self._used[name] = now
        idle = self._idle.get(name)
        if idle is not None and not idle.woken:
            idle.woken = True
            log.info("%s is loaded again", name)

    def bundles(self) -> frozenset[Bundle]:
        """Returns the versions of all models that are idle and that nobody has asked for."""
        return frozenset(
            one for idle in self._idle.values() if not idle.woken for one in idle.bundles
        )

    def without(
        self,
        wanted: Mapping[str, Wish],
        table: Table,
        unload_after_s: Callable[[str], float],
        now: float,
        heard: float,
    ) -> dict[str, Wish]:
        """Returns what should be served, without what is idle.

        Args:
            wanted: What should be served if calls asked for all of it.
            table: That is served.
            unload_after_s: Until a model that nobody asks for is idle; 0: never.
            now: The time.
            heard: Up to when all calls are known.
        """
        for name in self._idle.keys() - wanted.keys():
            del self._idle[name]
        kept = {}
        for name, wish in wanted.items():
            after_s = unload_after_s(name)
            served = frozenset(table.versions(name).values())
            bundles = frozenset(wish.bundles.values())
            idle = self._idle.get(name)
            if idle is None:
                if after_s and served == bundles and not wish.unread:
                    self._let_rest(name, wish, after_s, now, heard)
            elif (idle.woken and (served or not bundles)) or not (bundles or wish.unread):
                del self._idle[name]
            elif not after_s or bundles != idle.bundles or wish.unread:
                # Another version was published: it has to be loaded to be known.
                self.wake(name, now)
            if name not in self._idle or self._idle[name].woken:
                kept[name] = wish
        return kept

    def whole(self, table: Table, wanted: Mapping[str, Wish]) -> Table:
        """Returns a table without models that are loaded again and of which a version still lacks.

        The calls that wait for them may ask for any of these versions.
        """

        def is_whole(model: ServedModel) -> bool:
            idle, wish = self._idle.get(model.name), wanted.get(model.name)
            if idle is None or wish is None:
                return True
            # Not those that were removed or refused meanwhile.
            return idle.bundles & frozenset(wish.bundles.values()) <= frozenset(model.versions)

        return replace(table, models=tuple(filter(is_whole, table.models)))

    def models(
        self, served: Table, labelled: Callable[[IdleModel], IdleModel]
    ) -> tuple[IdleModel, ...]:
        """Returns the models that are idle, by name, but for those that a table serves.

        Args:
            served: The table.
            labelled: Returns a model with its labels.
        """
        names = {model.name for model in served.models}
        return tuple(
            labelled(idle.model) for name, idle in sorted(self._idle.items()) if name not in names
        )

    def _let_rest(self, name: str, wish: Wish, after_s: float, now: float, heard: float) -> None:
        """Makes a model idle if nobody has asked for it for so long, and all of it is known."""
        known = all(one in self._descriptions for one in wish.bundles.values())
        if not wish.bundles or not known or heard - self._used.setdefault(name, now) < after_s:
            return
        newest_first = [wish.bundles[version] for version in sorted(wish.bundles, reverse=True)]
        model = IdleModel(
            name,
            tuple(self._descriptions[one] for one in newest_first),
            {},
            sum(self._load_s[one] for one in newest_first),
        )
        self._idle[name] = _Idle(model, frozenset(newest_first))
        log.info("%s is unloaded until a call asks for it: none has for %g s", name, after_s)

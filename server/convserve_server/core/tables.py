"""What all workers of a server serve at a time: a table, which has a number.

Workers have the next table before it counts. It counts for all of them from the moment at which its
number is written to memory that they share; see Repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from convserve_server.core.descriptions import ModelDescription


@dataclass(frozen=True)
class Bundle:
    """A version of a model, and what its file holds.

    Attributes:
        name: of the model.
        version: of the model.
        digest: SHA-256 of its files, hexadecimal; see Content.
    """

    name: str
    version: int
    digest: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True)
class ServedModel:
    """The versions of a model that are served.

    Attributes:
        name: of the model.
        versions: at least one, newest first.
        labels: the version that each label names; only versions that are served.
        default_label: the label whose version answers calls that ask for none; empty: the first
            version does.
    """

    name: str
    versions: tuple[Bundle, ...]
    labels: Mapping[str, int] = field(default_factory=dict)
    default_label: str = ""

    @property
    def default(self) -> int | None:
        """The version that answers calls that ask for none; None: no version has the label."""
        return _default(self)


@dataclass(frozen=True)
class IdleModel:
    """A model that is unloaded until a call asks for it.

    Attributes:
        name: of the model.
        versions: at least one, newest first.
        labels: the version that each label names; only versions that are here.
        load_s: that loading them took the last time.
        default_label: see ServedModel.
    """

    name: str
    versions: tuple[ModelDescription, ...]
    labels: Mapping[str, int]
    load_s: float
    default_label: str = ""

    @property
    def default(self) -> int | None:
        """See ServedModel.default."""
        return _default(self)


@dataclass(frozen=True)
class Refusal:
    """A version that is in the models folder and cannot be served.

    Attributes:
        name: of the model.
        version: of the model.
        reason: for people.
    """

    name: str
    version: int
    reason: str


@dataclass(frozen=True)
class Table:
    """All that is served.

    Attributes:
        generation: its number; later tables have greater ones.
        models: by name.
        refused: by name, then newest first.
        loading: names of models that are not served yet and of which a version is being loaded.
        idle: models that are loaded when a call asks for them, by name.
    """

    generation: int = 0
    models: tuple[ServedModel, ...] = ()
    refused: tuple[Refusal, ...] = ()
    loading: tuple[str, ...] = ()
    idle: tuple[IdleModel, ...] = ()

    @property
    def bundles(self) -> frozenset[Bundle]:
        """All versions that are served."""
        return frozenset(bundle for model in self.models for bundle in model.versions)

    def versions(self, name: str) -> Mapping[int, Bundle]:
        """Returns the versions of a model that are served, by their numbers."""
        for model in self.models:
            if model.name == name:
                return {bundle.version: bundle for bundle in model.versions}
        return {}

    def callable_versions(self, name: str) -> frozenset[int]:
        """Returns the versions of a model that calls may ask for, also of one that is idle."""
        idle = {one.version for model in self.idle if model.name == name for one in model.versions}
        return frozenset(idle) | self.versions(name).keys()

    def labels(self, name: str) -> Mapping[str, int]:
        """Returns the version that each label of a model names, also of one that is idle."""
        model = self._model(name)
        return model.labels if model else {}

    def default_label(self, name: str) -> str:
        """Returns the label whose version answers calls that ask a model for none; may be empty."""
        model = self._model(name)
        return model.default_label if model else ""

    def default(self, name: str) -> int | None:
        """Returns the version that answers calls that ask a model for none; None: there is none."""
        model = self._model(name)
        return model.default if model else None

    def says_the_same(self, other: "Table") -> bool:
        """Returns whether the tables differ in nothing but their numbers."""
        return replace(self, generation=other.generation) == other

    def _model(self, name: str) -> ServedModel | IdleModel | None:
        models: tuple[ServedModel | IdleModel, ...] = (*self.models, *self.idle)
        return next((one for one in models if one.name == name), None)


def _default(model: ServedModel | IdleModel) -> int | None:
    if not model.default_label:
        return model.versions[0].version
    return model.labels.get(model.default_label)

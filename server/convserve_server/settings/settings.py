"""All settings of a server in one object, with what single models have of their own."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from convserve_bundle.contract import NAME_RULE, is_name
from convserve_host.arguments import did_you_mean
from convserve_server.settings.kinds import Value, shown
from convserve_server.settings.sections import (
    OF_ONE_MODEL,
    Batching,
    Engine,
    Limits,
    Listen,
    Log,
    Models,
    Process,
    Security,
    Telemetry,
)
from convserve_server.settings.setting import Section, Setting, SettingError, settings_of

#: The sections by their names, in the order of the help.
SECTIONS: dict[str, type[Section]] = {
    section.__name__.lower(): section
    for section in (Listen, Security, Process, Limits, Batching, Engine, Models, Telemetry, Log)
}

#: The definition of each setting, by its name.
SETTINGS: dict[str, Setting] = {
    one.name: one for section in SECTIONS.values() for one in settings_of(section)
}

#: The definition of each setting that a table [models.NAME] may hold, by its name.
PER_MODEL: dict[str, Setting] = {
    one.name: one for one in (*SETTINGS.values(), *OF_ONE_MODEL) if one.per_model
}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What holds for one model; the meaning and range of each are those of all models.

    Attributes:
        max_queue: Images that may wait for each of its versions.
        max_batch: Its maximum batch size; 0: by the device.
        max_delay_ms: Its maximum batching delay.
        max_wait_ms: Longest time that a call for it may wait; 0: as its deadline allows.
        priority: Of calls for it that do not give theirs.
        device: auto, cpu or cuda.
        engine: auto, onnxruntime or openvino.
        engine_threads: Threads of its engine on CPU.
        versions: That are served: so many of the newest, "all", or these.
        control: poll, explicit or none.
        rollout: newest or label.
        unload_after_s: Without a call after which it is unloaded; 0: never.
        labels: The version that each label names.
    """

    max_queue: int
    max_batch: int
    max_delay_ms: float
    max_wait_ms: float
    priority: str
    device: str
    engine: str
    engine_threads: int
    versions: int | Literal["all"] | tuple[int, ...]
    control: Literal["poll", "explicit", "none"]
    rollout: Literal["newest", "label"]
    unload_after_s: float
    labels: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a server, validated.

    Attributes:
        by_model: By a model's name, the values that it has of its own: those of [models.NAME].

    Raises:
        SettingError: When it is made, the folder is missing, by_model has a name or value that is
            not valid, or a queue is too small for the requests that are allowed.
    """

    models: Models
    listen: Listen = field(default_factory=Listen)
    security: Security = field(default_factory=Security)
    process: Process = field(default_factory=Process)
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    engine: Engine = field(default_factory=Engine)
    telemetry: Telemetry = field(default_factory=Telemetry)
    log: Log = field(default_factory=Log)
    by_model: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks what no section checks by itself."""
        if not self.models.folder:
            raise SettingError("models: expected the folder of bundles, as --models DIR, got none")
        by_model = {
            model: {
                key: PER_MODEL[key].checked(value, f"models.{model}.{key}")
                for key, value in check_table(model, table).items()
            }
            for model, table in self.by_model.items()
        }
        object.__setattr__(self, "by_model", by_model)
        self._check_queues()
        self._check_rollout()

    def _check_queues(self) -> None:
        """Refuses queues that hold less than a request may have.

        A request larger than the queue is answered only while nothing else waits. The default of
        max_images is not checked: nobody has asked for it.

        Raises:
            SettingError: There is one.
        """
        most = self.limits.max_images
        if most == SETTINGS["max_images"].default:
            return
        if most > self.batching.max_queue:
            raise SettingError(
                f"max_images: expected at most max_queue, {self.batching.max_queue}, got {most}"
            )
        for model, table in self.by_model.items():
            own = table.get("max_queue")
            if isinstance(own, int) and own < most:
                raise SettingError(
                    f"models.{model}.max_queue: expected at least max_images, {most}, got {own}"
                )

    def _check_rollout(self) -> None:
        """Refuses labels in two files, and new versions that nobody would look for.

        Raises:
            SettingError: There are some.
        """
        if self.models.rollout == "label" and self.models.control != "poll":
            raise SettingError(
                f"control: expected poll, since rollout is label, got {self.models.control}"
            )
        for name in self.by_model:
            model = self.for_model(name)
            if model.rollout != "label":
                continue
            if model.labels:
                raise SettingError(
                    f"models.{name}.labels: expected none, since rollout is label and the labels "
                    f"are those of {name}/labels.json, got {shown(model.labels)}"
                )
            if model.control != "poll":
                raise SettingError(
                    f"models.{name}.control: expected poll, since rollout is label, got "
                    f"{model.control}"
                )

    def values(self) -> dict[str, Value]:
        """Returns the value of each setting by its name; see SETTINGS."""
        return {
            name: getattr(getattr(self, one.section), one.attribute)
            for name, one in SETTINGS.items()
        }

    def items(self) -> Iterator[tuple[str, Value]]:
        """Yields name and value of each setting, and of each that one model has of its own.

        The names of the latter are as models.mnist.max_batch.
        """
        yield from self.values().items()
        for model, table in self.by_model.items():
            for key, value in table.items():
                yield f"models.{model}.{key}", value

    def replace(self, **values: Value) -> Self:
        """Returns these settings with other values, by their names.

        Raises:
            SettingError: A value is out of range.
        """
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            sections.setdefault(SETTINGS[name].section, {})[SETTINGS[name].attribute] = value
        changed: dict[str, Any] = {
            section: dataclasses.replace(getattr(self, section), **attributes)
            for section, attributes in sections.items()
        }
        return dataclasses.replace(self, **changed)

    def for_model(self, name: str) -> ModelSettings:
        """Returns what holds for one model: its own values, else those of all models.

        After resources are planned (host/resources.py), engine_threads is never 0: a model whose
        own is 0 has those of all models.
        """
        own = {key: value for key, value in self.by_model.get(name, {}).items()}
        if not own.get("engine_threads"):
            own["engine_threads"] = self.engine.engine_threads
        common = self.values()
        values: dict[str, Any] = {
            key: own.get(key, common.get(key, one.default)) for key, one in PER_MODEL.items()
        }
        return ModelSettings(**values)


def make_settings(
    by_model: Mapping[str, Mapping[str, Value]] | None = None, /, **values: Value
) -> Settings:
    """Returns settings from values by their names; what is not given is the default.

    Args:
        by_model: See Settings.
        values: By the names of SETTINGS, of the right types.

    Raises:
        SettingError: A value is of another type or out of range, or the folder is missing.
    """
    attributes: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        attributes[SETTINGS[name].section][SETTINGS[name].attribute] = value
    sections: dict[str, Any] = {
        name: section(**attributes[name]) for name, section in SECTIONS.items()
    }
    return Settings(**sections, by_model=by_model or {})


def check_table(model: str, table: Mapping[str, Value]) -> Mapping[str, Value]:
    """Returns the table [models.NAME] if its name and keys are valid.

    Raises:
        SettingError: They are not.
    """
    if not is_name(model):
        raise SettingError(f"models: {NAME_RULE}, got {model!r}")
    for key in table:
        if key not in PER_MODEL:
            raise SettingError(
                f"models.{model}: expected keys of {', '.join(PER_MODEL)}, got {key!r}"
                f"{did_you_mean(key, PER_MODEL)}"
            )
    return table

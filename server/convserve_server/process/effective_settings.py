"""What convserve-serve --check prints: the settings as they would be here, and their origins."""

import json
from dataclasses import dataclass

from convserve_host.cpus import available_cpus
from convserve_host.memory import memory_limit
from convserve_server.host.resources import plan_resources
from convserve_server.settings.kinds import Value, shown
from convserve_server.settings.settings import PER_MODEL, SETTINGS
from convserve_server.settings.sources import DEFAULT, Loaded

#: The origin of what is chosen by the CPUs, the memory and the packages that there are.
CHOSEN = "chosen for this machine"


@dataclass(frozen=True)
class Effective:
    """The value of one setting, and the flag, variable or file that gave it."""

    value: Value
    origin: str


def effective_settings(loaded: Loaded, front: str) -> dict[str, Effective]:
    """Returns what each setting would be on this machine, by its name.

    For each model with a table [models.NAME] all that the table may hold is there as well, as
    models.NAME.max_batch.

    Args:
        loaded: The settings as given.
        front: That was chosen.
    """
    given = loaded.settings
    planned = plan_resources(given.replace(front=front), available_cpus(), memory_limit()).settings
    before = given.values()
    result = {
        name: Effective(value, loaded.origins[name] if value == before[name] else CHOSEN)
        for name, value in planned.values().items()
    }
    for model, table in given.by_model.items():
        settings = planned.for_model(model)
        for key in PER_MODEL:
            value: Value = getattr(settings, key)
            own = key in table and table[key] == value
            common = result[key].origin if key in SETTINGS else DEFAULT
            origin = loaded.origins[f"models.{model}.{key}"] if own else common
            result[f"models.{model}.{key}"] = Effective(value, origin)
    return result


def as_table(effective: dict[str, Effective]) -> str:
    """Returns a line for each setting: its name, its value and where that comes from."""
    lines = [("setting", "value", "from")]
    lines += [(name, shown(one.value) or "none", one.origin) for name, one in effective.items()]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in lines)


def as_json(effective: dict[str, Effective], unknown: tuple[str, ...]) -> str:
    """Returns one JSON document: the settings by section, those of single models, by name.

    Args:
        effective: The settings.
        unknown: Variables that are not settings.
    """
    settings: dict[str, dict[str, object]] = {}
    models: dict[str, dict[str, object]] = {}
    for name, one in effective.items():
        shown = {"value": one.value, "from": one.origin}
        if name in SETTINGS:
            settings.setdefault(SETTINGS[name].section, {})[name] = shown
        else:
            _, _, rest = name.partition(".")
            model, _, key = rest.rpartition(".")
            models.setdefault(model, {})[key] = shown
    document = {"settings": settings, "by_model": models, "unknown_variables": unknown}
    # A secret is written as ***.
    return json.dumps(document, indent=2, default=str)

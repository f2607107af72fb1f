"""Where the values of the settings come from.

A value is that of the first of: the flag --max-batch, the variable CONVSERVE_MAX_BATCH, the key
max_batch in the TOML file given by --config (or CONVSERVE_CONFIG), the default.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convserve_server.settings.command_line import CONFIG_VARIABLE, PREFIX, parser, variable
from convserve_server.settings.kinds import Value
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import SETTINGS, Settings, make_settings
from convserve_server.settings.settings_file import FileValues, read_settings_file

#: Of the client, which may run in the same environment.
_CLIENT = frozenset(
    PREFIX + name
    for name in (
        "SERVER", "MODEL", "TLS", "TLS_CA", "TLS_SERVER_NAME", "CLIENT_CERT", "CLIENT_KEY",
        "KEY_FILE",
    )
)  # fmt: skip
#: Kubernetes sets variables in the prefix of each service; one may be called convserve.
_SERVICE_LINK = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp)://.*")

DEFAULT = "default"


@dataclass(frozen=True)
class Loaded:
    """Settings, and how they came about.

    Attributes:
        settings: All of them, validated.
        origins: By the name of a setting (models.mnist.max_batch for one that a model has of its
            own): the flag, the variable or the file that gave it; "default".
        unknown: Variables in our prefix that are not settings, each with what may have been meant.
        check: How to print the settings, text or json, if only that is asked for; else empty.
    """

    settings: Settings
    origins: Mapping[str, str]
    unknown: tuple[str, ...]
    check: str


def load(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Loaded:
    """Returns the settings from flags, variables, file and defaults, in this order.

    Raises:
        SettingError: Naming the setting, where it came from, what is expected, and its value.
        SystemExit: After --help, --version or --print-completion, or for an unknown flag
            (status 2).
    """
    flags = vars(parser().parse_args(arguments))
    check, format_ = flags.pop("check"), flags.pop("format")
    if format_ and not check:
        raise SettingError("--format: expected together with --check, got it alone")
    config = flags.pop("config") or environ.get(CONFIG_VARIABLE)
    file = read_settings_file(config) if config else FileValues()
    values: dict[str, Value] = dict(file.values)
    origins = dict.fromkeys(SETTINGS, DEFAULT) | dict.fromkeys(file.values, str(config))
    for model, table in file.by_model.items():
        origins |= {f"models.{model}.{key}": str(config) for key in table}
    for name, origin in _variables(environ).items():
        values[name] = SETTINGS[name].parse(environ[origin], origin)
        origins[name] = origin
    for name, one in SETTINGS.items():
        if flags[name] is not None:
            values[name] = one.parse(flags[name], one.flag)
            origins[name] = one.flag
    settings = make_settings(file.by_model, **values)
    return Loaded(settings, origins, tuple(_unknown(environ)), (format_ or "text") if check else "")


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of settings that are set, by the name of the setting."""
    return {
        name: variable(name)
        for name in SETTINGS
        if variable(name) in environ and not _SERVICE_ADDRESS.fullmatch(environ[variable(name)])
    }


def _unknown(environ: Mapping[str, str]) -> list[str]:
    """Returns the variables in our prefix that are not settings, with what may have been meant."""
    known = {*map(variable, SETTINGS), *_CLIENT, CONFIG_VARIABLE}
    return [
        found + _hint(found)
        for found in sorted(environ)
        if found.startswith(PREFIX) and found not in known and not _SERVICE_LINK.fullmatch(found)
    ]


def _hint(unknown: str) -> str:
    # Without the prefix, which would make any two variables alike.
    close = difflib.get_close_matches(unknown.removeprefix(PREFIX).lower(), SETTINGS, 1)
    return f" (did you mean {variable(close[0])}?)" if close else ""

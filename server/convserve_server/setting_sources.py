"""Where the values of the settings come from, and the command line that takes them.

A value is taken from the first of: the flag --max-batch, the variable CONVSERVE_MAX_BATCH, the key
max_batch in the TOML file given by --config (or CONVSERVE_CONFIG), the default.
"""

import argparse
import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convserve_server.config import FIELDS, SettingError, Settings, parse

PREFIX = "CONVSERVE_"

_CONFIG = PREFIX + "CONFIG"
#: Of the client, which may run in the same environment.
_CLIENT = frozenset({PREFIX + "SERVER", PREFIX + "MODEL"})
#: Kubernetes sets variables in the prefix of each service; one may be called convserve.
_SERVICE_LINK = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp)://.*")

_GROUPS = {
    "calls": "calls, from the network to the service",
    "batching": "batching",
    "engine": "engine",
    "models": "models",
    "log": "log",
}

_EPILOG = """examples:
  convserve-serve --models models
  CONVSERVE_MAX_BATCH=32 convserve-serve --models models --host 0.0.0.0 --front grpcio
"""


@dataclass(frozen=True)
class Loaded:
    """Settings, and how they came about.

    Attributes:
        settings: All of them, validated.
        origins: By name of a setting: the flag, the variable or the file that gave it; "default".
        unknown: Variables in our prefix that are no setting, each with what may have been meant.
        check: Whether only that is asked for.
    """

    settings: Settings
    origins: Mapping[str, str]
    unknown: tuple[str, ...]
    check: bool


def load(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Loaded:
    """Returns the settings from flags, variables, file and defaults, in this order.

    Raises:
        SettingError: naming the setting, its value, where it came from and what is taken.
        SystemExit: after --help or --version, or for an unknown flag (status 2).
    """
    flags = vars(parser().parse_args(arguments))
    check = flags.pop("check")
    config = flags.pop("config") or environ.get(_CONFIG)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    for name, value in _from_file(config).items():
        values[name] = parse(FIELDS[name], value, f"{config}: {name}")
        origins[name] = f"{config}"
    for name, variable in _variables(environ).items():
        values[name] = parse(FIELDS[name], environ[variable], variable)
        origins[name] = variable
    for name, text in flags.items():
        if text is not None:
            flag = f"--{name.replace('_', '-')}"
            values[name] = parse(FIELDS[name], text, flag)
            origins[name] = flag
    return Loaded(Settings(**values), origins, tuple(_unknown(environ)), check)


def parser() -> argparse.ArgumentParser:
    """The command line, made from the fields of Settings; values stay text until checked."""
    result = argparse.ArgumentParser(
        prog="convserve-serve",
        description="Serves ONNX image classifiers over gRPC.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument(
        "-V", "--version", action="version", version=f"%(prog)s {version('convserve')}"
    )
    result.add_argument(
        "--config", metavar="FILE", help="TOML file with these settings [env: CONVSERVE_CONFIG]"
    )
    result.add_argument(
        "--check", action="store_true",
        help="print the settings that would be used here, and where each comes from, and end",
    )  # fmt: skip
    groups = {key: result.add_argument_group(title) for key, title in _GROUPS.items()}
    for name, field in FIELDS.items():
        groups[field.metadata["group"]].add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=field.metadata["metavar"] or "{" + ",".join(field.metadata["choices"]) + "}",
            help=_help(field),
        )
    return result


def _help(field: "dataclasses.Field[Any]") -> str:
    parts = [field.metadata["help"]]
    if field.metadata["low"] is not None:
        parts.append(f", {field.metadata['low']:g} to {field.metadata['high']:.10g}")
    if field.default != "":
        parts.append(f" [default: {field.default}]")
    parts.append(f" [env: {PREFIX}{field.name.upper()}]")
    return "".join(parts).replace("%", "%%")


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of settings that are set, by the name of the setting."""
    return {
        name: variable
        for name in FIELDS
        if (variable := PREFIX + name.upper()) in environ
        and not _SERVICE_ADDRESS.fullmatch(environ[variable])
    }


def _unknown(environ: Mapping[str, str]) -> list[str]:
    """Returns the variables in our prefix that are no setting, with what may have been meant."""
    known = [PREFIX + name.upper() for name in FIELDS]
    unknown = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in {*known, *_CLIENT, _CONFIG}:
            continue
        if not _SERVICE_LINK.fullmatch(variable):
            unknown.append(variable + _hint(variable, PREFIX))
    return unknown


def _hint(name: str, prefix: str = "") -> str:
    """Returns which setting a name may mean; empty if it is like none."""
    close = difflib.get_close_matches(name.removeprefix(prefix).lower(), FIELDS, 1)
    if not close:
        return ""
    return f" (did you mean {prefix + close[0].upper() if prefix else close[0]}?)"


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with Path(path).open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise SettingError(f"config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"config: {path} is not TOML: {error}") from error
    for key in content:
        if key not in FIELDS:
            raise SettingError(f"{path}: unknown setting {key}{_hint(key)}")
    return content

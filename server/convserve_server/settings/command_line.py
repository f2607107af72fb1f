"""The command line of convserve-serve, made from the definitions of the settings."""

import argparse
import textwrap
from importlib.metadata import version

from convserve_host.arguments import ArgumentParser, add_print_completion
from convserve_server.settings.kinds import Switch, shown
from convserve_server.settings.sections import OF_ONE_MODEL
from convserve_server.settings.setting import Setting
from convserve_server.settings.settings import PER_MODEL, SECTIONS, SETTINGS

PREFIX = "CONVSERVE_"
CONFIG_VARIABLE = PREFIX + "CONFIG"

_DESCRIPTION = """Serves ONNX image classifiers over gRPC.

A setting can be given as a flag, as an environment variable, or as a key of the TOML file that
--config names; the first of these that is given counts. The key of --max-batch is max_batch, at
the top of the file or in the table of its group, which is [batching]."""

_MODELS = """Which models are served.

In the file: models = "DIR" at the top, or folder = "DIR" in the table [models].
A file with a table [models.NAME] cannot have models = "DIR" at the top. The table holds what
differs for one model, of {keys} (engine_threads = 0: as for all others).
Only the table of a model may hold {only}."""

_EPILOG = """examples:
  convserve-serve --models models
  CONVSERVE_MAX_BATCH=32 convserve-serve --models models --http-port 8080
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser; the values of settings stay text, and None where not given."""
    result = ArgumentParser(
        prog="convserve-serve",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "-V", "--version", action="version", version=f"%(prog)s {version('convserve')}"
    )
    add_print_completion(result)
    result.add_argument(
        "--config", metavar="FILE", help=f"TOML file with these settings [env: {CONFIG_VARIABLE}]"
    )
    result.add_argument(
        "--check", action="store_true",
        help="print the settings that would be used here, and where each comes from, and exit",
    )  # fmt: skip
    result.add_argument(
        "--format", choices=("text", "json"), help="with --check: how to print [default: text]"
    )
    groups = {
        name: result.add_argument_group(name, _models() if name == "models" else section.__doc__)
        for name, section in SECTIONS.items()
    }
    for one in SETTINGS.values():
        group = groups[one.section]
        if isinstance(one.kind, Switch):
            group.add_argument(
                one.flag, dest=one.name, action="store_true", default=None, help=_help(one)
            )
            continue
        metavar = one.metavar or "{" + ",".join(one.choices) + "}"
        group.add_argument(one.flag, dest=one.name, metavar=metavar, help=_help(one))
    return result


def variable(name: str) -> str:
    """Returns the environment variable of a setting."""
    return PREFIX + name.upper()


def _models() -> str:
    only = [f"{one.name} = {one.metavar}: {one.help}" for one in OF_ONE_MODEL]
    text = _MODELS.format(keys=", ".join(PER_MODEL), only="; ".join(only))
    head, _, rest = text.partition("\n\n")
    return f"{head}\n\n{textwrap.fill(rest, 98)}"


def _help(one: Setting) -> str:
    parts = [one.help]
    if one.range:
        parts.append(f", {one.range}")
    if one.default != "":
        parts.append(f" [default: {shown(one.default)}]")
    parts.append(f" [env: {variable(one.name)}]")
    return "".join(parts).replace("%", "%%")

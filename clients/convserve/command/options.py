"""The command line of `convserve`, and which module does what it asks for.

A command's module is imported when it runs: `convserve health`, which is run every few seconds,
pays for nothing that only pictures need.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable

from convserve.address import DEFAULT_SERVER
from convserve.command import connection_options, label_options, option_values
from convserve.command.option_values import MOST_IN_FLIGHT
from convserve.command.top import options as top_options
from convserve.settings import (
    ADMIN_SOCKET_VARIABLE,
    DEFAULT_TIMEOUT_S,
    MODEL_VARIABLE,
    PRIORITIES,
    SERVER_VARIABLE,
    default_admin_socket,
    default_model,
    default_server,
)
from convserve_host.arguments import ArgumentParser, add_print_completion

DEFAULT_IN_FLIGHT = 16
DEFAULT_ADMIN_TIMEOUT_S = 120.0

# argparse has no public name for what add_subparsers returns.
_Commands = argparse._SubParsersAction


def parser() -> ArgumentParser:
    """Returns the parser; what it parses has `run`, which returns the exit status for it."""
    parser = ArgumentParser(
        prog="convserve",
        description="Asks a Convserve server what is in pictures.",
        epilog=_examples(
            "convserve classify seven.png",
            "convserve models --server gpu1:50051 --format jsonl",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *("-V", "--version"),
        action=_Version,
        nargs=0,
        help="show program's version number and exit",
    )
    add_print_completion(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_classify(commands)
    _add_evaluate(commands)
    _add_models(commands)
    _add_health(commands)
    _add_label(commands)
    _add_admin(commands)
    _add_new_key(commands)
    _add_bench(commands)
    _add_top(commands)
    return parser


def _classify(arguments: argparse.Namespace) -> int:
    from convserve.command.classify_command import classify

    return classify(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from convserve.command.evaluate_command import evaluate

    return evaluate(arguments)


def _models(arguments: argparse.Namespace) -> int:
    if arguments.fleet:
        from convserve.command.fleet_command import models_of_fleet

        return models_of_fleet(arguments)
    from convserve.command.models_command import models

    return models(arguments)


def _health(arguments: argparse.Namespace) -> int:
    from convserve.command.health_command import health

    return health(arguments)


def _admin(arguments: argparse.Namespace) -> int:
    from convserve.command.admin_command import admin

    return admin(arguments)


def _new_key(arguments: argparse.Namespace) -> int:
    from convserve.command.new_key import new_key

    return new_key(arguments)


def _bench(arguments: argparse.Namespace) -> int:
    from convserve.command.missing_input import MissingPackage

    try:
        from convserve_bench.command import bench
    except ModuleNotFoundError as error:
        if error.name != "hpack":
            raise
        message = "hpack is not installed; run: pip install 'convserve[bench]'"
        raise MissingPackage(message) from error
    return bench(arguments)


def _top(arguments: argparse.Namespace) -> int:
    from convserve.command.missing_input import MissingPackage

    try:
        from convserve.command.top.command import top
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in ("prometheus_client", "rich"):
            raise
        message = f"{package} is not installed; run: pip install 'convserve[top]'"
        raise MissingPackage(message) from error
    return top(arguments)


def _add_classify(commands: _Commands[ArgumentParser]) -> None:
    command = _command(
        commands,
        "classify",
        _classify,
        "Says what is on each picture, in the order in which they are named. A folder gives all its"
        " files, and those of its folders, in the formats that the model reads: JPEG; for digits or"
        " pixels PNG as well; PNG, WebP and GIF if it was trained with them. The row of a file that"
        " cannot be used says why; the others are answered. Photographs go to the server as they"
        " are, and so do pictures for a model of pixels, which must have its size. Digits are"
        " centred here as MNIST's are; a file that is named may be any that Pillow reads, dark on"
        " light or light on dark.",
        "convserve classify holiday/ cat.jpg --model cats-dogs --format jsonl > answers.jsonl",
        "convserve classify --show --model mnist --top-k 3 - < seven.png",
    )
    command.add_argument(
        "files",
        metavar="PATH",
        nargs="+",
        help="a picture, or a folder of pictures; - reads a picture from standard input",
    )
    _model(command)
    output = _output(command)
    output.add_argument(
        "--top-k",
        metavar="K",
        type=option_values.positive,
        help="the K most probable classes, 1 to their number [default: the most probable one]",
    )
    output.add_argument("--show", action="store_true", help="draw the digit as the model sees it")
    _progress(output, "drawn if stderr is a terminal and stdout is not")
    server = _server(command)
    _in_flight(server, "files")
    _priority(server)
    _wait(server, "to be there and to have the model, and to be back after an outage")


def _add_evaluate(commands: _Commands[ArgumentParser]) -> None:
    command = _command(
        commands,
        "evaluate",
        _evaluate,
        "Asks about labelled pictures and counts the right answers. They are a folder of classes,"
        " DIR/CLASS/*.jpg (or in another format that the model reads), named as the model's"
        " labels are; or MNIST's held-out digits, t10k-images-idx3-ubyte and"
        " t10k-labels-idx1-ubyte in DIR, gzip or not, or for a model of pixels those of its own"
        " data set. Exit status 0 if every picture was answered, 1 if not, or if the accuracy is"
        " below the one asked for.",
        "convserve evaluate mnist/ --model mnist --wait 60 --min-accuracy 0.99",
        "convserve evaluate cats_dogs/validation --model cats-dogs --format jsonl",
    )
    command.add_argument(
        "folder", metavar="DIR", help="with a folder for each class, or with MNIST's t10k files"
    )
    _model(command)
    output = _output(command)
    output.add_argument(
        "--min-accuracy",
        metavar="SHARE",
        type=option_values.share,
        help="exit status 1 if a smaller share of the answers is right, 0 to 1 [default: any will"
        " do]",
    )
    _progress(output, "drawn if stderr is a terminal")
    server = _server(command)
    _in_flight(server, "calls")
    _priority(server)
    _wait(server, "to be there and to have the model, and to be back after an outage")


def _add_models(commands: _Commands[ArgumentParser]) -> None:
    command = _command(
        commands,
        "models",
        _models,
        "Lists the models that the server has loaded. With --fleet what each of several servers"
        " has: exit status 0 if all have the same, 1 if one gives no answer, 3 if they differ.",
        "convserve models --server gpu1:50051 --format jsonl",
        "convserve models --fleet dns:///convserve:50051",
    )
    how = _output(command).add_mutually_exclusive_group()
    label_options.add_fleet(how)
    how.add_argument(
        "--watch",
        action="store_true",
        help="go on until Ctrl-C and print what changes: the table anew on a terminal, elsewhere a"
        " line or a JSON object for each change",
    )
    _wait(_server(command), "to be there")


def _add_health(commands: _Commands[ArgumentParser]) -> None:
    command = _command(
        commands,
        "health",
        _health,
        "Says whether the server answers calls: exit status 0 if it does, 1 if not.",
        "convserve health --wait 30",
        "convserve health --model mnist --timeout 2",
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument(
        "service",
        metavar="SERVICE",
        nargs="?",
        default="",
        help="name of one service [default: the server as a whole]",
    )
    what.add_argument(
        "--model",
        metavar="NAME",
        help=f"whether this model is served; {MODEL_VARIABLE} does not count here [default: the"
        " server as a whole]",
    )
    _output(command)
    _wait(_server(command), "to be there and serving")


def _add_label(commands: _Commands[ArgumentParser]) -> None:
    about, examples = label_options.ABOUT, label_options.EXAMPLES
    label = commands.add_parser(
        "label",
        help=about.split(".")[0],
        description=textwrap.fill(about, 80),
        epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = label.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (what, example) in label_options.COMMANDS.items():
        command = _command(actions, name, label_options.run(name), what, example)
        label_options.add(name, command)
        _output(command)


def _add_admin(commands: _Commands[ArgumentParser]) -> None:
    admin = commands.add_parser(
        "admin",
        help="Loads, unloads, labels and lists the versions of a server's models",
        description=textwrap.fill(
            "Loads, unloads, labels and lists the versions of a server's models. The server must"
            " have been started with --admin-socket, by the same user. Each command ends when every"
            " worker of the server does what was asked for, and prints the versions of the model.",
            80,
        ),
        epilog=_examples(
            "convserve admin list --socket /run/convserve/admin",
            "convserve admin label mnist stable --version 3",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = admin.add_subparsers(title="commands", metavar="COMMAND", required=True)
    load = _admin_command(
        actions,
        "load",
        "Loads a version of a model in all workers, which switch to it together.",
        "convserve admin load mnist --version 3",
    )
    _admin_model(load, "version to load, 1 or more [default: the newest in the models folder]")
    unload = _admin_command(
        actions,
        "unload",
        "Serves a version of a model no longer; what was accepted is still answered.",
        "convserve admin unload mnist --version 2",
    )
    _admin_model(unload, "version to unload, 1 or more [default: all of them]")
    label = _admin_command(
        actions,
        "label",
        "Moves a label to a version of a model that is served, or removes it.",
        "convserve admin label mnist stable --version 3",
        "convserve admin label mnist stable --remove",
    )
    label.add_argument("model", metavar="NAME", help="name of the model")
    label.add_argument(
        "label", metavar="LABEL", type=option_values.label, help="the label, such as stable"
    )
    where = label.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--version",
        metavar="N",
        type=option_values.positive,
        dest="model_version",
        help="version that has the label from now on, 1 or more",
    )
    where.add_argument("--remove", action="store_true", help="remove the label")
    listing = _admin_command(
        actions,
        "list",
        "Lists all versions in the models folder or served, with their states and the reasons.",
        "convserve admin list --format jsonl",
    )
    for command in (load, unload, label, listing):
        _output(command)
        server = command.add_argument_group("server")
        server.add_argument(
            "--socket",
            metavar="PATH",
            default=default_admin_socket(),
            required=default_admin_socket() is None,
            help=f"the server's --admin-socket (required) [env: {ADMIN_SOCKET_VARIABLE}]",
        )
        # Loading may need a minute.
        _timeout(server, DEFAULT_ADMIN_TIMEOUT_S)
        _wait(server, "to be there")


def _admin_command(
    actions: _Commands[ArgumentParser], name: str, description: str, *examples: str
) -> ArgumentParser:
    command = _command(actions, name, _admin, description, *examples)
    command.set_defaults(action=name)
    return command


def _admin_model(command: ArgumentParser, version: str) -> None:
    command.add_argument("model", metavar="NAME", help="name of the model")
    command.add_argument(
        "--version",
        metavar="N",
        type=option_values.positive,
        dest="model_version",
        help=version,
    )


def _add_new_key(commands: _Commands[ArgumentParser]) -> None:
    command = _command(
        commands,
        "new-key",
        _new_key,
        "Makes a key for callers: writes it into a new file, and prints the table that the server's"
        " file of keys needs, which has no more of it than its SHA-256.",
        "convserve new-key web web.key >> keys.toml",
    )
    command.add_argument("name", metavar="NAME", help="of the key, in the server's log")
    command.add_argument("file", metavar="FILE", help="to be made, which only its owner may read")


def _add_bench(commands: _Commands[ArgumentParser]) -> None:
    # Its own package, which the library knows nothing of.
    from convserve_bench import options as bench_options

    command = _command(commands, "bench", _bench, bench_options.ABOUT, *bench_options.EXAMPLES)
    _model(command)
    bench_options.add_load(command)
    bench_options.add_plot(output := _output(command))
    _progress(output, "a line each second if stderr is a terminal")
    _wait(_server(command, positional=True), "to be there and to have the model")


def _add_top(commands: _Commands[ArgumentParser]) -> None:
    command = _command(commands, "top", _top, top_options.ABOUT, *top_options.EXAMPLES)
    top_options.add_once(_output(command))
    source = top_options.add_source(command)
    _timeout(source)
    _wait(source, "to be there")


def _command(
    commands: _Commands[ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    description: str,
    *examples: str,
) -> ArgumentParser:
    command = commands.add_parser(
        name,
        help=description.split(":")[0].split(".")[0],
        description=textwrap.fill(description, 80),
        epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _model(command: ArgumentParser) -> None:
    group = command.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        default=default_model(),
        help="name of the model [default: the only one of the server, or the only one that fits"
        f" what is sent] [env: {MODEL_VARIABLE}]",
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--version",
        metavar="N",
        type=option_values.positive,
        dest="model_version",
        help="its version, 1 or more [default: the newest]",
    )
    which.add_argument(
        "--label",
        metavar="LABEL",
        type=option_values.label,
        dest="model_version",
        help="the version to which the operator has given this label",
    )


def _output(command: ArgumentParser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("output")
    group.add_argument(
        "--format",
        choices=("table", "jsonl", "json"),
        default="table",
        help="jsonl prints one JSON object a line, json one JSON document [default: %(default)s]",
    )
    return group


def _progress(output: argparse._ArgumentGroup, default: str) -> None:
    output.add_argument(
        "--no-progress",
        action="store_false",
        dest="progress",
        help=f"draw no progress bar [default: {default}]",
    )


def _server(command: ArgumentParser, *, positional: bool = False) -> argparse._ArgumentGroup:
    group = command.add_argument_group("server")
    address = group.add_mutually_exclusive_group()
    address.add_argument(
        "--server",
        metavar="HOST:PORT",
        type=option_values.address,
        # A string, so that argparse checks the variable's value as it checks the flag's.
        default=default_server(),
        help=f"where it listens [default: {DEFAULT_SERVER}] [env: {SERVER_VARIABLE}]",
    )
    if positional:
        address.add_argument(
            "address",
            metavar="HOST:PORT",
            nargs="?",
            type=option_values.address,
            action=_Server,
            help="the same as --server",
        )
    connection_options.add_tls(group)
    _timeout(group)
    return group


def _timeout(server: argparse._ArgumentGroup, default: float = DEFAULT_TIMEOUT_S) -> None:
    server.add_argument(
        "--timeout",
        metavar="S",
        type=option_values.timeout_seconds,
        default=default,
        help="longest wait for the answer, in seconds [default: %(default)g]",
    )


def _in_flight(server: argparse._ArgumentGroup, what: str) -> None:
    server.add_argument(
        "--in-flight",
        metavar="N",
        type=option_values.in_flight,
        default=DEFAULT_IN_FLIGHT,
        help=f"{what} sent and not yet answered, 1 to {MOST_IN_FLIGHT} [default: %(default)s]",
    )


def _priority(server: argparse._ArgumentGroup) -> None:
    server.add_argument(
        "--priority",
        choices=PRIORITIES,
        help="batch: a busy server answers it from what interactive calls leave [default: the"
        " server's, interactive]",
    )


def _wait(server: argparse._ArgumentGroup, until: str) -> None:
    server.add_argument(
        "--wait",
        metavar="S",
        type=option_values.wait_seconds,
        default=0.0,
        help=f"longest wait for the server {until}, in seconds, 0 or more [default: %(default)g]",
    )


class _Server(argparse.Action):
    """Stores an argument as the value of --server."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        # argparse calls it without a value, too, where the argument is not given.
        if values is not None:
            namespace.server = values


class _Version(argparse.Action):
    """Prints the version; looks it up no sooner, which takes as long as asking for the health."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"convserve {version('convserve')}")
        parser.exit()


def _examples(*commands: str) -> str:
    return "examples:\n" + "\n".join(f"  {command}" for command in commands)

"""The command `convserve`: asks a server from a terminal, or as a job."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence

from convserve.command.missing_input import MissingInput, MissingPackage
from convserve.command.options import parser
from convserve.command.standard_streams import (
    abandon_output,
    is_of_output,
    open_streams,
    print_error,
)
from convserve.command.stopping import Terminated, terminated_by_sigterm
from convserve.command.terminal_text import printable
from convserve.errors import ConvserveError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Its arguments; None: those of the process.

    Returns:
        The exit status: 0 done, 1 failed (a line on stderr says why), also because standard output
        is closed or full; 2 if an input that was named or an extra is not there, 130 interrupted
        by Ctrl-C, 143 by SIGTERM, 141 if nobody reads the output any more. Other wrong usage exits
        with 2 by SystemExit.
    """
    # What gRPC writes itself, for developers, is beside what a command prints.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with terminated_by_sigterm(), warnings.catch_warnings():
            warnings.showwarning = _print_warning
            open_streams()
            try:
                arguments = parser().parse_args(argv)
                status: int = arguments.run(arguments)
            finally:  # After --help, too, which exits.
                sys.stdout.flush()
    except ConvserveError as error:
        for line in (str(error), *getattr(error, "__notes__", ())):
            print_error(printable(line))
        return 2 if isinstance(error, (MissingInput, MissingPackage)) else 1
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        abandon_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if not is_of_output(error):
            raise
        abandon_output()
        print_error(f"cannot write standard output: {error.strerror}")
        return 1
    return status


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    print_error(printable(f"warning: {message}"))


if __name__ == "__main__":
    sys.exit(main())

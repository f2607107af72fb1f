"""The command `convserve`: asks a server from a terminal, or as a job."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from convserve.command.missing_input import MissingInput
from convserve.command.options import parser
from convserve.command.stopping import Terminated, terminated_by_sigterm
from convserve.command.terminal_text import printable
from convserve.errors import ConvserveError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Its arguments; None: those of the process.

    Returns:
        The exit status: 0 done, 1 failed (a line on stderr says why), 2 if an input that was named
        is not there, 130 interrupted by Ctrl-C, 143 by SIGTERM, 141 if nobody reads the output any
        more. Other wrong usage exits with 2 by SystemExit.
    """
    try:
        with terminated_by_sigterm():
            # No terminal that knows fewer characters shall cost an answer.
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
            arguments = parser().parse_args(argv)
            status: int = arguments.run(arguments)
            sys.stdout.flush()
    except ConvserveError as error:
        for line in (str(error), *getattr(error, "__notes__", ())):
            print(f"convserve: {printable(line)}", file=sys.stderr)
        return 2 if isinstance(error, MissingInput) else 1
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())

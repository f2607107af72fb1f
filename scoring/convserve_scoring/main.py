"""The command convserve-score."""

import os
import sys
from collections.abc import Sequence

from convserve_bundle.errors import BundleError
from convserve_host import os_errors
from convserve_scoring import stopping
from convserve_scoring.command_line import parser
from convserve_scoring.errors import ScoringError, Stopped

#: Packages that a plain installation, the client, does not have.
_EXTRA = {"cykooz_resizer", "msgspec", "onnxruntime", "pyarrow", "simplejpeg"}
#: Of single engines and of object stores.
_EXTRAS = {"ray": "score,ray", "distributed": "score,dask"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0; 3 if shards have failed, or check finds anything; 2 for a wrong option or an input that
        is not there, and 1 for any other error, both explained by a line on standard error; 130
        after Ctrl-C and 143 after SIGTERM; 141 if nobody reads the output any more.
    """
    options = parser().parse_args(arguments)
    try:
        with stopping.raised():
            status: int = options.command(options)
            sys.stdout.flush()
            return status
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA | _EXTRAS.keys():
            raise
        extra = _EXTRAS.get(error.name, "score")
        return _failed(f"{error.name} is not installed; run: pip install 'convserve[{extra}]'", 1)
    except ScoringError as error:
        return _failed(str(error), error.status)
    except BundleError as error:
        return _failed(str(error), 1)
    except BrokenPipeError:
        # The interpreter flushes it once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _failed(os_errors.described(error), 1)
    except Stopped as stop:
        return stop.status


def _failed(message: str, status: int) -> int:
    print(f"convserve-score: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""What the demos share as programs: headings, and how a run ends."""

import subprocess
import sys
import time
from collections.abc import Callable

from convserve import ConvserveError
from convserve_trainer.errors import USER_ERRORS
from examples.demo.server import ServerFailed


def title(text: str) -> None:
    """Head a part of the output."""
    print(f"\n== {text}", flush=True)


def run(job: Callable[[], bool]) -> int:
    """Do the job; returns the exit status, 0 if it returned True.

    What goes wrong outside the demo is explained by a line on standard error.
    """
    started = time.monotonic()
    try:
        same = job()
    except (*USER_ERRORS, ConvserveError, ServerFailed, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        # The program has printed why.
        return error.returncode
    except KeyboardInterrupt:
        return 130
    print(f"\nserver stopped; {time.monotonic() - started:.0f} s in all")
    return 0 if same else 1

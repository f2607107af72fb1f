"""The command convserve-train."""

import argparse
import sys
from collections.abc import Sequence

from convserve_bundle.errors import MissingBundleError
from convserve_host import os_errors
from convserve_trainer.cli.parser import parser
from convserve_trainer.errors import USER_ERRORS, Interrupted, TrainerError
from convserve_trainer.host import signals, streams

EXTRA = {
    *("cykooz_resizer", "keras", "matplotlib", "msgspec", "onnx", "onnxruntime", "onnxslim"),
    *("simplejpeg", "tensorflow", "tf2onnx"),
}
EXTRAS = {  # of single commands
    **dict.fromkeys(("jax", "jaxlib"), "train,jax"),
    "mlflow": "train,mlflow",
    "optuna": "train,sweep",
    "psycopg": "train,sweep,postgresql",
    **dict.fromkeys(("pyarrow", "yaml"), "train,parquet"),
}
LESS_MEMORY = (
    "give it more, or train with a smaller --batch-size; with photos, --cache none or a smaller "
    "--size takes less, too"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0; 2 for a wrong option or an input that is not there, 3 for drift that was found, and 1 for
        any other error, all explained by a line on standard error; 130 after Ctrl-C and 143 after
        SIGTERM; 141 if nobody reads the output any more and the command does nothing else.
    """
    streams.settle()
    try:
        options = parser().parse_args(arguments)
    except SystemExit as end:  # after --help, or a wrong option
        sys.exit(streams.flushed(int(end.code or 0)))
    options.typed = ["convserve-train", *(sys.argv[1:] if arguments is None else arguments)]
    if options.command.outlives_reader(options):
        streams.outlive()
    with signals.raised():
        return streams.flushed(_run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        options.command.run(options)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA | EXTRAS.keys():
            raise
        extra = EXTRAS.get(error.name, "train")
        print(
            f"convserve-train: {error.name} is not installed; run: pip install "
            f"'convserve[{extra}]'",
            file=sys.stderr,
        )
        return 1
    except USER_ERRORS as error:
        print(f"convserve-train: {error}", file=sys.stderr)
        return _status(error)
    except OSError as error:  # a disk or a permission, not a fault of ours
        if error.filename == streams.OUTPUT:
            return streams.refused(error)
        print(f"convserve-train: {os_errors.described(error)}", file=sys.stderr)
        return 1
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        print(f"convserve-train: out of memory{what}; {LESS_MEMORY}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        print(f"convserve-train: {interruption}", file=sys.stderr)
        return interruption.status
    except signals.Stopped as stop:
        print("convserve-train: stopped", file=sys.stderr)
        return stop.status
    return 0


def _status(error: Exception) -> int:
    """Returns the exit status after an error: 2 where the command line is wrong, else 1."""
    if isinstance(error, TrainerError):
        return error.status
    return 2 if isinstance(error, MissingBundleError) else 1


if __name__ == "__main__":
    sys.exit(main())

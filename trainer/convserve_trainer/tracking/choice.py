"""The trackers that a user asks for."""

import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

from convserve_trainer.errors import UsageError
from convserve_trainer.tracking.tracking import Factory


def find(
    classes: Sequence[str], mlflow: str | None, experiment: str | None, register: str | None
) -> list[tuple[str, Factory]]:
    """Returns trackers with their names.

    Args:
        classes: as MODULE:CLASS.
        mlflow: URI of MLflow; None for none.
        experiment: see mlflow_run.record.
        register: see mlflow_run.record.

    Raises:
        UsageError: there is no such class, or an option misses another.
        ModuleNotFoundError: MLflow is not installed.
    """
    found = [(name, _class(name)) for name in classes]
    if mlflow is None:
        for flag, value in (("experiment", experiment), ("register", register)):
            if value is not None:
                raise UsageError(f"--mlflow-{flag}: expected --mlflow URI beside it, got none")
        return found
    if find_spec("mlflow") is None:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    from convserve_trainer.tracking.mlflow_tracker import MlflowTracker

    return [*found, ("MLflow", partial(MlflowTracker, mlflow, experiment, register))]


def _class(name: str) -> Factory:
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"--tracker: expected MODULE:CLASS, got {name}")
    # A file beside the data, which a command that is installed does not look at by itself. Last, so
    # that it hides nothing.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--tracker: {name} cannot be imported: {error}") from error
    if not isinstance(found, type):
        raise UsageError(f"--tracker: expected a class, got {name}, a {type(found).__name__}")
    factory: Factory = found
    return factory
